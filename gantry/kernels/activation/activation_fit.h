#pragma once
// Tables of the signed-root fit: the derivative g = f'(f^-1(y)) of an activation f from its output y and the side of
// the minimum (x*, y*) that the input lay on. Derivation, and the program that reproduces these numbers:
// tools/fit_activation.py. With d = max(y - y*, 0), u = sqrt(d) right of x* and -sqrt(d) left of it, w =
// sqrt(ln(y*/y)):
//   accurate  right: core(u) up to core_end; tail(tail_y y + tail_u u - tail_centre) up to tail_end; 1 beyond
//             left:  y left(w), |y| clamped from below at kLeftClamp
//   fast      fast(u) up to fast_end; 1 beyond
// Coefficients ascend. The header is shared by the CPU and the CUDA kernels and includes nothing; for the accurate fit
// the CPU kernels have tables of their own, of many short pieces: activation_pieces.h.

namespace gantry::kernels::fit {

struct Table {
  float x_min;                ///< where f has its minimum
  float y_min, y_min_low;     ///< the minimum, to about 48 bits
  float minus_inverse_y_min;  ///< -1 / y_min
  float core_end, tail_end, fast_end;
  float tail_y, tail_u, tail_centre;
  float core[9], tail[11], left[9], fast[11];
};

inline constexpr float kLeftClamp = 1e-12f;

/// Upper normal tail Q(t) = exp(-t^2/2) (kNormalTailStart + v kNormalTail(v)), v = (t - k) / (t + k), for 0 <= t <= 15.
inline constexpr float kTailCentre = 1.5f, kNormalTailStart = 0.205780666f;
inline constexpr float kNormalTail[10] = {-0.270813819f,   0.0458682088f,   0.0251306822f,    -9.11909095e-05f,
                                          -0.00455920399f, -0.00210731379f, -2.68041717e-05f, 0.000506743734f,
                                          0.000282052822f, 5.579257e-05f};

inline constexpr float kQuickScale = 1.702f;
/// GELU's tanh form is x / (1 + exp(-x (kTanhLinear + kTanhCubic x^2))): 2 sqrt(2 / pi) in two parts, and times
/// 0.044715.
inline constexpr float kTanhLinear = 1.59576917f, kTanhLinearLow = -4.53406803e-8f, kTanhCubic = 0.0713548163f;

inline constexpr Table kErf = {-0.751791525f,
                               -0.169971213f,
                               5.26480903e-9f,
                               5.88334942f,
                               1.0f,
                               5.0f,
                               4.0f,
                               1.0f,
                               0.0f,
                               3.0f,
                               {-4.02067588e-7f, .929039243f, 1.19791891f, -1.47111535f, .770953469f, -.636901817f,
                                .425995673f, -.176215937f, .0410714874f},
                               {1.0118165f, -.0303778198f, .0319273684f, -.0145456796f, -.00170091175f, .00525913489f,
                                -.00171249113f, -.000456480783f, .000285395024f, 2.29932255e-5f, -1.98105872e-5f},
                               {2.9022529e-6f, 2.2530067f, -1.19566308f, 1.05029017f, -.678768407f, .324243786f,
                                -.106338957f, .0208282249f, -.00179951244f},
                               {-3.45609006e-4f, .90824033f, 1.23509372f, -1.05110066f, -.0950587897f, -2.44365567f,
                                7.77329016f, -9.54373181f, 5.8860809f, -1.80813644f, .220122809f}};

inline constexpr Table kTanh = {-0.752461422f,
                                -0.170040756f,
                                5.89275029e-9f,
                                5.8809433f,
                                1.0f,
                                5.0f,
                                4.0f,
                                1.0f,
                                0.0f,
                                3.0f,
                                {-4.0717126e-7f, .927861582f, 1.19858267f, -1.45667739f, .727770683f, -.578517486f,
                                 .375270728f, -.148085471f, .0342057106f},
                                {1.01146388f, -.0311631548f, .0335235724f, -.0144268111f, -.00293483805f, .00547370301f,
                                 -.00130363603f, -.000537894859f, .000217579838f, 3.14102902e-5f, -1.51462159e-5f},
                                {1.75621127e-6f, 2.24978472f, -1.19763472f, 1.06006372f, -.686952503f, .346867519f,
                                 -.115202785f, .0216883409f, -.00175079563f},
                                {-4.09907762e-4f, .903156184f, 1.24195543f, -.960749953f, -.302465978f, -2.58124441f,
                                 8.62816897f, -10.6168986f, 6.52084383f, -1.99374767f, .241770787f}};

inline constexpr Table kSilu = {-1.27846454f,
                                -0.278464556f,
                                1.29792825e-8f,
                                3.59112144f,
                                2.0f,
                                16.0f,
                                10.0f,
                                0.0f,
                                1.0f,
                                2.75f,
                                {-1.57385302e-7f, .66003626f, .897349936f, -.671772806f, -.0328951249f, .0828426214f,
                                 -.0193787842f, .0117500951f, -.00338710966f},
                                {1.00429684f, -.0196174738f, .0395105811f, -.0448081212f, .0239867843f, .0121827914f,
                                 -.0277237746f, .0100805376f, .00508464027f, -.002957321f, -3.28340398e-5f},
                                {1.50106484e-6f, 1.25062621f, -.896016305f, .573124581f, -.417526661f, .253850983f,
                                 -.0974170522f, .0203281017f, -.00176100477f},
                                {3.35695437e-4f, .659639177f, .886650077f, -.661973245f, .023681859f, -.0262514415f,
                                 .0365053634f, .0251262946f, -.0248911523f, .00656363661f, -5.76959134e-4f}};

}  // namespace gantry::kernels::fit
