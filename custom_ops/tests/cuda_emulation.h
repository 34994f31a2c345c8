// Stands in for CUDA when a C++ compiler reads the kernels: every thread of a block is a coroutine
// of its own, a barrier hands over to the next one, and blocks run one after another. Threads are
// resumed in a new random order after each barrier, so that a missing barrier shows as a wrong
// result. It checks what a kernel computes and where it reads and writes; not what a GPU's memory
// model, compiler or rounding do with it.
#pragma once
#pragma GCC diagnostic ignored \
    "-Wclobbered"  // GCC takes swapcontext for setjmp; no variable is lost
#include <ucontext.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <memory>
#include <numeric>
#include <random>
#include <stdexcept>
#include <vector>

#include "../src/half.h"

struct float4 {
  float x, y, z, w;
};
struct Index3 {
  unsigned x, y, z;
};

using half = onnx_lowrank::Float16;
using __nv_bfloat16 = onnx_lowrank::BFloat16;
inline float __half2float(half h) { return static_cast<float>(h); }
inline half __float2half_rn(float f) { return half::nearest(f); }
inline float __bfloat162float(__nv_bfloat16 h) { return static_cast<float>(h); }
inline __nv_bfloat16 __float2bfloat16_rn(float f) { return __nv_bfloat16::nearest(f); }
template <class T>
T __ldg(const T* p) {
  return *p;
}
inline uint32_t __umulhi(uint32_t a, uint32_t b) { return static_cast<uint64_t>(a) * b >> 32; }
inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
using std::max;
using std::min;

namespace onnx_lowrank::emulation {

struct Block {
  std::vector<float> shared;
  std::vector<ucontext_t> contexts;
  std::vector<char> finished;
  std::vector<std::unique_ptr<char[]>> stacks;
  std::function<void()> body;
  ucontext_t scheduler;
  int current = 0;
};
inline Block* block = nullptr;
inline Index3 thread_index, block_index;
inline float* shared_memory() { return block->shared.data(); }
inline void barrier() { swapcontext(&block->contexts[block->current], &block->scheduler); }
inline void entry() {
  block->body();
  block->finished[block->current] = 1;
}

// Runs body() for every thread of every block. Shared memory begins as NaN; threads that left
// before a barrier others wait at are an error, as they are undefined in CUDA.
inline void launch(int blocks, int threads, int shared_bytes, std::mt19937& engine,
                   std::function<void()> body) {
  Block b;
  block = &b;
  b.contexts.resize(threads);
  b.finished.resize(threads);
  constexpr size_t kStack = 64 << 10;
  for (int i = 0; i < threads; ++i) b.stacks.emplace_back(new char[kStack]);
  b.body = std::move(body);
  std::vector<int> order(threads);
  std::iota(order.begin(), order.end(), 0);
  for (int i = 0; i < blocks; ++i) {
    block_index = {static_cast<unsigned>(i), 0, 0};
    b.shared.assign(shared_bytes / 4, NAN);
    for (int t = 0; t < threads; ++t) {
      b.finished[t] = 0;
      getcontext(&b.contexts[t]);
      b.contexts[t].uc_stack.ss_sp = b.stacks[t].get();
      b.contexts[t].uc_stack.ss_size = kStack;
      b.contexts[t].uc_link = &b.scheduler;
      makecontext(&b.contexts[t], entry, 0);
    }
    for (int left = threads; left;) {
      std::shuffle(order.begin(), order.end(), engine);
      for (int t : order) {
        if (b.finished[t])
          throw std::runtime_error("some threads wait at a barrier that others never reach");
        b.current = t;
        thread_index = {static_cast<unsigned>(t), 0, 0};
        swapcontext(&b.scheduler, &b.contexts[t]);
        left -= b.finished[t];
      }
    }
  }
  block = nullptr;
}

}  // namespace onnx_lowrank::emulation

#define threadIdx (onnx_lowrank::emulation::thread_index)
#define blockIdx (onnx_lowrank::emulation::block_index)
#define __syncthreads() onnx_lowrank::emulation::barrier()
