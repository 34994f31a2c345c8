#include <immintrin.h>

#include "simd.h"

namespace onnx_lowrank {
namespace {

struct Vec {
  using T = __m256;
  static constexpr int L = 8, kRegisters = 16, kRows = 4;
  static __m256i mask(int n) {
    return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  }
  static T load(const float* p) { return _mm256_loadu_ps(p); }
  static void store(float* p, T v) { _mm256_storeu_ps(p, v); }
  static T load(const float* p, int n) { return _mm256_maskload_ps(p, mask(n)); }
  static void store(float* p, T v, int n) { _mm256_maskstore_ps(p, mask(n), v); }
  static T set1(float x) { return _mm256_set1_ps(x); }
  static T fma(T a, T b, T c) { return _mm256_fmadd_ps(a, b, c); }
  static T add(T a, T b) { return _mm256_add_ps(a, b); }
  static T sub(T a, T b) { return _mm256_sub_ps(a, b); }
  static T mul(T a, T b) { return _mm256_mul_ps(a, b); }
  static T div(T a, T b) { return _mm256_div_ps(a, b); }
  static T min(T a, T b) { return _mm256_min_ps(a, b); }
  static T max(T a, T b) { return _mm256_max_ps(a, b); }
  static T sqrt(T a) { return _mm256_sqrt_ps(a); }
  // v[i][j] <-> v[j][i]
  static void transpose(T* v) {
    T a[8], b[8];
#pragma GCC unroll 16
    for (int i = 0; i < 8; i += 2) {
      a[i] = _mm256_unpacklo_ps(v[i], v[i + 1]);
      a[i + 1] = _mm256_unpackhi_ps(v[i], v[i + 1]);
    }
#pragma GCC unroll 16
    for (int i = 0; i < 8; i += 4)
#pragma GCC unroll 16
      for (int j = 0; j < 2; ++j) {
        b[i + 2 * j] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0x44);
        b[i + 2 * j + 1] = _mm256_shuffle_ps(a[i + j], a[i + j + 2], 0xee);
      }
#pragma GCC unroll 16
    for (int i = 0; i < 4; ++i) {
      v[i] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x20);
      v[i + 4] = _mm256_permute2f128_ps(b[i], b[i + 4], 0x31);
    }
  }
  static T even(T a, T b) { return ordered(_mm256_shuffle_ps(a, b, 0x88)); }
  static T odd(T a, T b) { return ordered(_mm256_shuffle_ps(a, b, 0xdd)); }
  static T ordered(T v) {
    return _mm256_castpd_ps(_mm256_permute4x64_pd(_mm256_castps_pd(v), 0xd8));
  }
  // a0 b0 a1 b1 ..., first and second half
  static T low(T a, T b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x20);
  }
  static T high(T a, T b) {
    return _mm256_permute2f128_ps(_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b), 0x31);
  }
};

#include "functions.inl"

}  // namespace

namespace simd {
const Simd avx2 = kFunctions;
}

}  // namespace onnx_lowrank
