// What the kernels take from CUDA, so that a C++ compiler can read the same source:
// tests/cuda_emulation.h then stands in for threads, blocks, shared memory and barriers.
#pragma once
#include <cstdint>

#ifdef __CUDACC__
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#define OLR_KERNEL __global__ void
#define OLR_BOUNDS(threads, blocks) __launch_bounds__(threads, blocks)
#define OLR_DEVICE __device__ __forceinline__
#define OLR_HOST_DEVICE __host__ __device__ __forceinline__
#define OLR_UNROLL _Pragma("unroll")
#define OLR_UNROLL_BY_2 _Pragma("unroll 2")
#define OLR_SHARED(name) extern __shared__ __align__(16) float name[]
#else
#include "../../tests/cuda_emulation.h"
#define OLR_KERNEL void
#define OLR_BOUNDS(threads, blocks)
#define OLR_DEVICE inline
#define OLR_HOST_DEVICE inline
#define OLR_UNROLL
#define OLR_UNROLL_BY_2
#define OLR_SHARED(name) float* const name = onnx_lowrank::emulation::shared_memory()
#endif

namespace onnx_lowrank::cuda {

// Storage types are float, half and bfloat16; all arithmetic is in float.
OLR_DEVICE float load(const float* p) { return __ldg(p); }
OLR_DEVICE float load(const half* p) { return __half2float(__ldg(p)); }
OLR_DEVICE float load(const __nv_bfloat16* p) { return __bfloat162float(__ldg(p)); }
OLR_DEVICE void store(float* p, float v) { *p = v; }
OLR_DEVICE void store(half* p, float v) { *p = __float2half_rn(v); }
OLR_DEVICE void store(__nv_bfloat16* p, float v) { *p = __float2bfloat16_rn(v); }

// x / d and x % d of numbers below 2^16 by one multiplication.
struct Divisor {
  uint32_t d, multiplier;  // ceil(2^32 / d); 0 for d = 1, where it would not fit
  OLR_DEVICE uint32_t quotient(uint32_t x) const {
    return multiplier ? __umulhi(x, multiplier) : x;
  }
};

// Returns index % n and leaves index / n.
OLR_DEVICE int remainder(int& index, int n) {
  const int whole = index / n, rest = index - whole * n;
  index = whole;
  return rest;
}

// y = clip(x), then a slope below zero. Comparisons, not fmin, so that NaN goes through as on the
// CPU.
struct DeviceActivation {
  float min, max, alpha;
  OLR_DEVICE float operator()(float x) const {
    x = x < min ? min : x;
    x = x > max ? max : x;
    return x < 0 ? alpha * x : x;
  }
};

// A window over depth, height and width, and the sizes before and after it.
struct DeviceWindow {
  int kernel[3], stride[3], dilation[3], begin[3], in[3], out[3];
};

constexpr int kWarp = 32;

}  // namespace onnx_lowrank::cuda
