// Real spherical harmonics of a unit direction, degrees 0 to 3. See nerf/kernels/harmonics.py for the definition.
//
// The includer defines SHARED_FN (the qualifiers of a small inline function).
#pragma once

namespace harmonics {

constexpr int count = 16;

template <class T>
SHARED_FN void of(T x, T y, T z, T (&out)[count]) {
    const T xx = x * x, yy = y * y, zz = z * z;
    // Square roots of 1/4, 3/4, 15/4, 5/16, 15/16, 35/32, 105/4, 21/32, 7/16 and 105/16, each over pi.
    out[0] = T(0.28209479177387814);
    out[1] = T(0.4886025119029199) * y;
    out[2] = T(0.4886025119029199) * z;
    out[3] = T(0.4886025119029199) * x;
    out[4] = T(1.0925484305920792) * x * y;
    out[5] = T(1.0925484305920792) * y * z;
    out[6] = T(0.31539156525252005) * (T(3) * zz - T(1));
    out[7] = T(1.0925484305920792) * x * z;
    out[8] = T(0.5462742152960396) * (xx - yy);
    out[9] = T(0.5900435899266435) * y * (T(3) * xx - yy);
    out[10] = T(2.890611442640554) * x * y * z;
    out[11] = T(0.4570457994644658) * y * (T(5) * zz - T(1));
    out[12] = T(0.3731763325901154) * z * (T(5) * zz - T(3));
    out[13] = T(0.4570457994644658) * x * (T(5) * zz - T(1));
    out[14] = T(1.445305721320277) * z * (xx - yy);
    out[15] = T(0.5900435899266435) * x * (xx - T(3) * yy);
}

}  // namespace harmonics
