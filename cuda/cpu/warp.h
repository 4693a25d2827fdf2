// Points through a photo's deformation: from their place and the photo's code to a screw motion or a translation
// (Nerfies, equations 2 to 5), and back. See nerf/kernels/warp.py for the definition.
//
// Points come in blocks of rows that go through encoding, network and motion while they lie in cache.
#pragma once

#include "mlp_driver.h"

namespace warping {

using V = simd::vec<float>;
constexpr int lanes = simd::lanes<float>;

struct Settings {
    int bands;
    const float* window;  // weight of each band
    int code;             // numbers of a code, the parts' twists included
    int parts;
    float fade;
    bool turns;  // a screw motion; otherwise a translation

    int encoded() const { return 3 + 6 * bands; }
    int own() const { return code - 6 * parts; }  // what of a code enters the network
    int inputs() const { return encoded() + own(); }
    int twist() const { return turns ? 6 : 3; }
    // NaN is outside.
    bool moves(const float* y) const {
        return fade == 0 || (std::abs(y[0]) < 1 && std::abs(y[1]) < 1 && std::abs(y[2]) < 1);
    }
    // How much of its motion a point makes.
    float share(const float* y) const {
        float product = 1;
        if (fade == 0) return product;
        for (int a = 0; a < 3; ++a) product *= std::min(1.f, (1 - std::abs(y[a])) / fade);
        return product;
    }
};

template <class F>
struct Warp {
    Settings settings;
    const mlp::Network<F>& network;
    const mlp::Network<F>* shares;  // null where there are no parts

    int rows() const { return mlp::block_rows(network); }
    size_t bytes() const {
        return mlp::Block<F>::bytes(network, rows()) + (shares ? mlp::Block<F>::bytes(*shares, rows()) : 0);
    }
};

// A block's numbers, in rows; kept by a thread for its next block.
struct Points {
    std::vector<float> y, inputs, encoded, twist, shares;
    std::vector<float> to_twist, to_inputs, to_shares;  // gradients

    void grow(const Settings& s, int rows) {
        const size_t n = rows + lanes;  // whole vectors may be written
        for (auto* array : {&y, &to_twist, &twist}) array->resize(n * 6);
        inputs.resize(n * s.inputs()), to_inputs.resize(n * s.inputs());
        encoded.resize(n * s.encoded());
        shares.resize(n * s.parts), to_shares.resize(n * s.parts);
    }
};

// One column of rows that are `stride` wide; rows beyond the arrays' padding are never asked for.
SHARED_FN V column(const float* rows, int stride) {
    alignas(64) float values[lanes];
    for (int i = 0; i < lanes; ++i) values[i] = rows[i * stride];
    return simd::load<V>(values);
}
SHARED_FN void set_column(float* rows, int stride, V v) {
    for (int i = 0; i < lanes; ++i) rows[i * stride] = v[i];
}

// y, sin(2^j pi y), cos(2^j pi y), each band times its weight, into rows that are `stride` wide.
inline void encode(const Settings& s, int count, const float* y, float* rows, int stride) {
    for (int i = 0; i < count; i += lanes)
        for (int a = 0; a < 3; ++a) {
            const V place = column(y + 3 * i + a, 3);
            float* to = rows + static_cast<int64_t>(i) * stride + a;
            set_column(to, stride, place);
            float scale = 3.14159265f;
            for (int band = 0; band < s.bands; ++band, scale *= 2) {
                V sine, cosine;
                simd::sincos_(place * scale, sine, cosine);
                set_column(to + 3 + 6 * band, stride, sine * s.window[band]);
                set_column(to + 6 + 6 * band, stride, cosine * s.window[band]);
            }
        }
}

struct Vector {
    V x, y, z;
    Vector operator+(const Vector& o) const { return {x + o.x, y + o.y, z + o.z}; }
    Vector operator*(V k) const { return {x * k, y * k, z * k}; }
};
SHARED_FN Vector cross(const Vector& a, const Vector& b) {
    return {a.y * b.z - a.z * b.y, a.z * b.x - a.x * b.z, a.x * b.y - a.y * b.x};
}
SHARED_FN V dot(const Vector& a, const Vector& b) { return a.x * b.x + a.y * b.y + a.z * b.z; }
SHARED_FN Vector columns(const float* rows, int stride) {
    return {column(rows, stride), column(rows + 1, stride), column(rows + 2, stride)};
}
SHARED_FN void set_columns(float* rows, int stride, const Vector& v) {
    set_column(rows, stride, v.x), set_column(rows + 1, stride, v.y), set_column(rows + 2, stride, v.z);
}

// sum_n (-q)^n / (2 n + first)! for q < 1, or its derivative by q.
template <int first, bool slope>
SHARED_FN V series(V q) {
    constexpr int terms = 7;  // the next one is below 2^-24 of the first
    float factor[terms];
    float factorial = 1;
    for (int n = 2; n <= first; ++n) factorial *= static_cast<float>(n);
    for (int n = 0; n < terms; ++n) {
        factor[n] = (n % 2 ? -1.f : 1.f) / factorial;
        factorial *= static_cast<float>((2 * n + first + 1) * (2 * n + first + 2));
    }
    V total = {};
    for (int n = terms - 1; n >= (slope ? 1 : 0); --n)
        total = simd::fma(total, q, V{} + (slope ? static_cast<float>(n) : 1.f) * factor[n]);
    return total;
}

// b = (1 - cos theta) / theta^2 and c = (theta - sin theta) / theta^3 of q = theta^2, and their derivatives by q. Below an
// angle of 1 they are their series: nothing is lost to cancellation there.
struct Coefficients {
    V b, c, b_slope, c_slope;
};
inline Coefficients coefficients(V q) {
    const auto small = q < 1.f;
    const V near = small ? q : V{};
    Coefficients k = {series<2, false>(near), series<3, false>(near), series<2, true>(near), series<3, true>(near)};
    bool all = true;
    for (int i = 0; i < lanes; ++i) all = all && small[i];
    if (all) return k;
    const V far = small ? V{} + 1.f : q;
    V theta, sine, cosine;
    for (int i = 0; i < lanes; ++i) theta[i] = std::sqrt(far[i]);
    simd::sincos_(theta, sine, cosine);
    const V b = (1.f - cosine) / far, c = (theta - sine) / (theta * far);
    k.b = small ? k.b : b, k.c = small ? k.c : c;
    k.b_slope = small ? k.b_slope : (1.f - c * far - 2.f * b) / (2.f * far);
    k.c_slope = small ? k.c_slope : (b - 3.f * c) / (2.f * far);
    return k;
}

// x' - x of the screw motion, for rows of twists (r, v); see nerf/kernels/screw.py.
inline void screw(int count, const float* x, const float* twist, float* motion) {
    for (int i = 0; i < count; i += lanes) {
        const Vector r = columns(twist + 6 * i, 6), v = columns(twist + 6 * i + 3, 6);
        const Vector y = cross(r, columns(x + 3 * i, 3)) + v, ky = cross(r, y);
        const Coefficients k = coefficients(dot(r, r));
        set_columns(motion + 3 * i, 3, y + ky * k.b + cross(r, ky) * k.c);
    }
}

// The gradients of the twists from those of x' (to_motion), by the transposed product rule.
inline void screw_gradient(int count, const float* x, const float* twist, const float* to_motion, float* to_twist) {
    for (int i = 0; i < count; i += lanes) {
        const Vector r = columns(twist + 6 * i, 6), v = columns(twist + 6 * i + 3, 6), at = columns(x + 3 * i, 3);
        const Vector y = cross(r, at) + v, ky = cross(r, y), kky = cross(r, ky), g = columns(to_motion + 3 * i, 3);
        const Coefficients k = coefficients(dot(r, r));
        const Vector to_kky = g * k.c, to_ky = g * k.b + cross(to_kky, r), to_y = g + cross(to_ky, r);
        const V to_square = 2.f * (k.b_slope * dot(g, ky) + k.c_slope * dot(g, kky));
        set_columns(to_twist + 6 * i, 6,
                    cross(ky, to_kky) + cross(y, to_ky) + cross(at, to_y) + r * to_square);
        set_columns(to_twist + 6 * i + 3, 6, to_y);
    }
}

inline void softmax(int rows, int width, float* values) {
    for (float* row = values; row < values + static_cast<int64_t>(rows) * width; row += width) {
        const float highest = *std::max_element(row, row + width);
        float sum = 0;
        for (int k = 0; k < width; ++k) sum += row[k] = std::exp(row[k] - highest);
        for (int k = 0; k < width; ++k) row[k] /= sum;
    }
}

// The outputs of the last layer, with the layers before left in the block for a backward pass.
template <class F>
void forward_kept(const mlp::Network<F>& net, mlp::Block<F>& block, const float* x, float* out) {
    const auto& last = net.layers[net.depth - 1];
    mlp::forward_hidden(net, block, x, true);
    mlp::forward_last(net, block, block.wide);
    mlp::copy_rows(block.wide, last.out_pad, out, last.out, block.live);
}

// A thread's blocks of both networks.
template <class F>
struct Blocks {
    mlp::Block<F> network, shares;

    explicit Blocks(const Warp<F>& warp)
        : Blocks(warp, static_cast<char*>(threads::scratch(warp.bytes() + 64))) {}

private:
    Blocks(const Warp<F>& warp, char* memory)
        : network(warp.network, warp.rows(), memory),
          shares(warp.shares ? *warp.shares : warp.network, warp.shares ? warp.rows() : 0,
                 memory + (mlp::Block<F>::bytes(warp.network, warp.rows()) + 63) / 64 * 64) {}
};

// The twists of `count` points p.y; code_of(i): point i's code.
template <class F, class CodeOf>
void twists(const Warp<F>& warp, Blocks<F>& blocks, Points& p, int count, CodeOf&& code_of) {
    const Settings& s = warp.settings;
    const int inputs = s.inputs(), encoded = s.encoded(), width = s.twist();
    encode(s, count, p.y.data(), p.inputs.data(), inputs);
    for (int i = 0; i < count; ++i) {
        float* row = p.inputs.data() + static_cast<int64_t>(i) * inputs;
        if (warp.shares) std::copy_n(row, encoded, p.encoded.data() + static_cast<int64_t>(i) * encoded);
        std::copy_n(code_of(i), s.own(), row + encoded);
    }
    blocks.network.set_rows(count);
    forward_kept(warp.network, blocks.network, p.inputs.data(), p.twist.data());
    if (!warp.shares) return;
    blocks.shares.set_rows(count);
    forward_kept(*warp.shares, blocks.shares, p.encoded.data(), p.shares.data());
    softmax(count, s.parts, p.shares.data());
    for (int i = 0; i < count; ++i)
        for (int part = 0; part < s.parts; ++part)
            for (int k = 0; k < width; ++k)
                p.twist[i * width + k] += p.shares[i * s.parts + part] * code_of(i)[s.own() + part * width + k];
}

// How far points y of the cube [-1, 1]^3 move, in its units; code_of(i): point i's code.
template <class F, class CodeOf>
void displace(const Warp<F>& warp, int64_t count, const float* y, CodeOf&& code_of, float* motion) {
    static thread_local Points p;
    static thread_local std::vector<int64_t> moving;
    static thread_local std::vector<float> moved;
    const Settings& s = warp.settings;
    const int rows = warp.rows();
    p.grow(s, rows), moved.resize((rows + lanes) * 3), moving.clear();
    std::fill_n(motion, 3 * count, 0.f);
    for (int64_t i = 0; i < count; ++i)
        if (s.moves(y + 3 * i)) moving.push_back(i);
    if (moving.empty()) return;
    Blocks<F> blocks(warp);
    for (size_t first = 0; first < moving.size(); first += rows) {
        const int live = static_cast<int>(std::min<size_t>(rows, moving.size() - first));
        const int64_t* index = moving.data() + first;
        for (int i = 0; i < live; ++i) std::copy_n(y + 3 * index[i], 3, &p.y[3 * i]);
        twists(warp, blocks, p, live, [&](int i) { return code_of(index[i]); });
        if (s.turns) screw(live, p.y.data(), p.twist.data(), moved.data());
        const float* by = s.turns ? moved.data() : p.twist.data();
        for (int i = 0; i < live; ++i) {
            const float share = s.share(&p.y[3 * i]);
            for (int a = 0; a < 3; ++a) motion[3 * index[i] + a] = by[3 * i + a] * share;
        }
    }
}

// A warp as the entry points take it.
struct Given {
    Settings settings;
    int depth;  // 0: no warp
    const int32_t* widths;
    const uint8_t* again;
    const void *const *weights, *const *biases;
    int share_depth;
    const int32_t* share_widths;
    const void *const *share_weights, *const *share_biases;

    template <class F>
    mlp::Network<F> network(bool for_backward) const {
        return mlp::network<F>({depth, widths, again, activation::relu, activation::none, 0}, weights, biases,
                               for_backward);
    }
    template <class F>
    std::vector<mlp::Network<F>> shares(bool for_backward) const {
        std::vector<mlp::Network<F>> found;
        if (settings.parts)
            found.push_back(mlp::network<F>({share_depth, share_widths, nullptr, activation::relu, activation::none, 0},
                                            share_weights, share_biases, for_backward));
        return found;
    }
};

}  // namespace warping

#define WARP_ARGUMENTS                                                                                             \
    int turns, int bands, const float *window, int code_width, int parts, double fade, int warp_depth,             \
        const int32_t *warp_widths, const uint8_t *warp_again, const void *const *warp_weights,                    \
        const void *const *warp_biases, int share_depth, const int32_t *share_widths,                              \
        const void *const *share_weights, const void *const *share_biases
#define WARP_PARTS                                                                                                 \
    const warping::Given warp_given = {                                                                            \
        {bands, window, code_width, parts, static_cast<float>(fade), turns != 0}, warp_depth, warp_widths,         \
        warp_again, warp_weights, warp_biases, share_depth, share_widths, share_weights, share_biases};
