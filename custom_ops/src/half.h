// float16 and bfloat16 as bits, to float and back; rounding is to the nearest, ties to even. Any
// compiler, any instruction set.
#pragma once
#include <cstdint>
#include <cstring>

namespace onnx_lowrank {

inline uint32_t bits_of(float x) {
  uint32_t u;
  std::memcpy(&u, &x, 4);
  return u;
}
inline float float_of(uint32_t u) {
  float x;
  std::memcpy(&x, &u, 4);
  return x;
}

struct BFloat16 {
  uint16_t bits;
  explicit operator float() const { return float_of(static_cast<uint32_t>(bits) << 16); }
  static BFloat16 nearest(float x) {
    const uint32_t u = bits_of(x);
    if (x != x)
      return {static_cast<uint16_t>(u >> 16 |
                                    0x40)};  // quiet, so that cutting bits cannot make it infinite
    return {static_cast<uint16_t>((u + 0x7fff + (u >> 16 & 1)) >> 16)};
  }
};

// IEEE 754 binary16: 5 bits of exponent (bias 15), 10 of fraction.
struct Float16 {
  uint16_t bits;
  explicit operator float() const {
    const uint32_t sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31,
                   fraction = bits & 1023;
    if (exponent == 31) return float_of(sign | 0x7f800000 | fraction << 13);
    if (exponent == 0) {  // subnormal: a multiple of 2^-24, exact in float
      const float x = static_cast<float>(fraction) * 0x1p-24f;
      return sign ? -x : x;
    }
    return float_of(sign | (exponent + 112) << 23 | fraction << 13);
  }
  static Float16 nearest(float x) {
    const uint32_t u = bits_of(x), sign = u >> 16 & 0x8000, magnitude = u & 0x7fffffff;
    if (magnitude > 0x7f800000)
      return {static_cast<uint16_t>(sign | 0x7e00 | (magnitude >> 13 & 0x3ff))};
    if (magnitude >= 0x477ff000)
      return {static_cast<uint16_t>(sign | 0x7c00)};  // from 65520 on, halfway to the next step
    // Below the smallest normal number: adding 0.5 leaves a sum whose unit is 2^-24, rounded by the
    // addition.
    if (magnitude < 0x38800000)
      return {static_cast<uint16_t>(sign | (bits_of(float_of(magnitude) + 0.5f) - bits_of(0.5f)))};
    return {static_cast<uint16_t>(
        sign | ((magnitude - (112u << 23) + 0xfff + (magnitude >> 13 & 1)) >> 13))};
  }
};

template <class H>
void widen(const void* from, float* to, int64_t count) {
  auto p = static_cast<const H*>(from);
  for (int64_t i = 0; i < count; ++i) to[i] = static_cast<float>(p[i]);
}
template <class H>
void narrow(const float* from, void* to, int64_t count) {
  auto p = static_cast<H*>(to);
  for (int64_t i = 0; i < count; ++i) p[i] = H::nearest(from[i]);
}

}  // namespace onnx_lowrank
