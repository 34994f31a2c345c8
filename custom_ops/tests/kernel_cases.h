// What the cases of all ops share: random weights, shapes around the edges of tiles and vectors,
// and the comparison of every instruction set with the scalar reference.
#pragma once
#include <cmath>
#include <cstdio>
#include <thread>

#include "../src/kernels.h"
#include "random.h"

namespace onnx_lowrank {

// The cases of each op.
namespace kernel_cases {
#define ONNX_LOWRANK_OP(file, ...) void file();
#include "../src/ops.inc"
#undef ONNX_LOWRANK_OP
}  // namespace kernel_cases

inline int failures = 0, cases = 0;

// Two threads that share the iterations, as a pool would.
inline void two_threads(size_t count, const std::function<void(size_t)>& body) {
  auto half = [&](size_t from) {
    for (size_t i = from; i < count; i += 2) body(i);
  };
  std::thread other(half, 1);
  half(0);
  other.join();
}

template <class D>
void compare(const char* what, const D& d, const Image& in, int64_t outputs) {
  const auto x = values(in.batch * in.channels * in.size[0] * in.size[1] * in.size[2]);
  std::vector<float> expected(outputs), got(outputs);
  auto serial = [](size_t n, const std::function<void(size_t)>& body) {
    for (size_t i = 0; i < n; ++i) body(i);
  };
  reference_kernel(d)->run(in, x.data(), expected.data(), serial);
  float most = 0;
  for (float v : expected) most = std::max(most, std::fabs(v));
  for (const Isa& isa : isas()) {
    if (!isa.simd || !isa.runs()) continue;
    for (int threads : {1, 2}) {
      auto kernel = make_kernel(isa, d);
      std::fill(got.begin(), got.end(), NAN);
      if (threads == 1)
        kernel->run(in, x.data(), got.data(), serial);
      else
        kernel->run(in, x.data(), got.data(), two_threads);
      ++cases;
      for (int64_t i = 0; i < outputs; ++i)
        // Three stages of at most a few hundred float32 terms, summed in another order; Winograd
        // doubles the error of one.
        if (!(std::fabs(got[i] - expected[i]) <= 6e-6f * most)) {
          std::printf("%s %s threads %d size %ldx%ld: [%ld] %g, expected %g\n", what, isa.name,
                      threads, long(in.size[1]), long(in.size[2]), long(i), got[i], expected[i]);
          ++failures;
          break;
        }
    }
  }
}

inline Window window(int64_t k, int64_t s, int64_t d, int64_t p) {
  Window w;
  for (int a : {1, 2}) {
    w.kernel[a] = k;
    w.stride[a] = s;
    w.dilation[a] = d;
    w.begin[a] = w.end[a] = p;
  }
  return w;
}

// A small image whose width, and a rank or number of filters, are near the edges of vectors and
// tiles.
struct Edge {
  int64_t width, height, rank, stride;
  Window window;
  int64_t plane() const { return window.output(1, height) * window.output(2, width); }
};

template <class F>
void for_edges(const F& f) {
  for (int64_t width : {1, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 112, 113})
    for (int64_t rank : {1, 3, 4, 5, 7, 8, 9, 17})
      for (int64_t s : {1, 2, 3})
        f(Edge{width, 6 + rank % 2, rank, s, window(3, s, 1 + (s == 3), 2)});
}

}  // namespace onnx_lowrank
