#include <immintrin.h>

#include "simd.h"

namespace onnx_lowrank {
namespace {

struct Vec {
  using T = __m512;
  static constexpr int L = 16, kRegisters = 32, kRows = 8;
  static __m512 load(const float* p) { return _mm512_loadu_ps(p); }
  static void store(float* p, T v) { _mm512_storeu_ps(p, v); }
  static T load(const float* p, int n) {
    return _mm512_maskz_loadu_ps(static_cast<__mmask16>((1u << n) - 1), p);
  }
  static void store(float* p, T v, int n) {
    _mm512_mask_storeu_ps(p, static_cast<__mmask16>((1u << n) - 1), v);
  }
  static T set1(float x) { return _mm512_set1_ps(x); }
  static T fma(T a, T b, T c) { return _mm512_fmadd_ps(a, b, c); }
  static T add(T a, T b) { return _mm512_add_ps(a, b); }
  static T sub(T a, T b) { return _mm512_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm512_mul_ps(a, b); }
  static T div(T a, T b) { return _mm512_div_ps(a, b); }
  static T min(T a, T b) { return _mm512_min_ps(a, b); }
  static T max(T a, T b) { return _mm512_max_ps(a, b); }
  static T sqrt(T a) { return _mm512_sqrt_ps(a); }
  // v[i][j] <-> v[j][i]
  static void transpose(T* v) {
    T a[16], b[16];
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 2) {
      a[i] = _mm512_unpacklo_ps(v[i], v[i + 1]);
      a[i + 1] = _mm512_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 16; i += 4)
#pragma GCC unroll 16
      for (int j = 0; j < 2; ++j) {
        const __m512d p = _mm512_castps_pd(a[i + j]), q = _mm512_castps_pd(a[i + j + 2]);
        b[i + 2 * j] = _mm512_castpd_ps(_mm512_unpacklo_pd(p, q));
        b[i + 2 * j + 1] = _mm512_castpd_ps(_mm512_unpackhi_pd(p, q));
      }
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i)
#pragma GCC unroll 16
      for (int j = 0; j < 16; j += 8) {
        a[i + j] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0x88);
        a[i + j + 4] = _mm512_shuffle_f32x4(b[i + j], b[i + j + 4], 0xdd);
      }
#pragma GCC unroll 16
    for (int i = 0; i < 8; ++i) {
      v[i] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0x88);
      v[i + 8] = _mm512_shuffle_f32x4(a[i], a[i + 8], 0xdd);
    }
  }
  static T even(T a, T b) {
    return _mm512_permutex2var_ps(
        a, _mm512_set_epi32(30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0), b);
  }
  static T odd(T a, T b) {
    return _mm512_permutex2var_ps(
        a, _mm512_set_epi32(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1), b);
  }
  // a0 b0 a1 b1 ..., first and second half
  static T low(T a, T b) {
    return _mm512_permutex2var_ps(
        a, _mm512_set_epi32(23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0), b);
  }
  static T high(T a, T b) {
    return _mm512_permutex2var_ps(
        a, _mm512_set_epi32(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8), b);
  }
};

#include "functions.inl"

}  // namespace

namespace simd {
const Simd avx512 = kFunctions;
}

}  // namespace onnx_lowrank
