// The volume rendering recurrence of one ray, forward and backward.
//
// With x_i = density_i dt_i: the light left after sample i is T_{i+1} = T_i e^{-x_i}, its weight w_i = T_i (1 -
// e^{-x_i}). If L depends on the ray through v_i = dL/dw_i, then dL/dx_i = v_i T_{i+1} - sum_{j > i} v_j w_j: the
// sample's own light grows as it grows denser, and everything behind it dims by as much as it shows.
#pragma once

namespace rendering {

template <class T>
struct Sums {
    double light = 1;  // float64: a product of a thousand factors
    T rgb[3] = {}, depth = 0, opacity = 0;
};

template <class T>
SHARED_FN T add_weighted(Sums<T>& ray, T weight, const T* rgb, T t) {
    for (int c = 0; c < 3; ++c) ray.rgb[c] += weight * rgb[c];
    ray.depth += weight * t;
    ray.opacity += weight;
    return weight;
}

template <class T>
SHARED_FN T add_sample(Sums<T>& ray, T absorbed, T passed, const T* rgb, T t) {
    const T weight = static_cast<T>(ray.light * absorbed);
    ray.light *= passed;
    return add_weighted(ray, weight, rgb, t);
}

// `behind` holds sum_{j > i} v_j w_j and takes the sample in; returns dL/dx_i.
template <class T>
SHARED_FN T optical_gradient(T& behind, T value, T weight, T light_after) {
    const T gradient = value * light_after - behind;
    behind += value * weight;
    return gradient;
}

}  // namespace rendering
