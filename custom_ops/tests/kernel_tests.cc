// Each instruction set's kernels against the scalar reference, around the edges of tiles and
// vectors; also what the sanitizers run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <random>
#include <thread>

#include "../src/kernels.h"

using namespace onnx_lowrank;

namespace {

int failures = 0, cases = 0;
std::mt19937 engine(1);

std::vector<float> values(int64_t n, float scale = 1.0f) {
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> v(n);
  for (float& x : v) x = normal(engine);
  return v;
}

std::vector<int64_t> shuffled(int64_t n) {
  std::vector<int64_t> v(n);
  for (int64_t i = 0; i < n; ++i) v[i] = i;
  std::shuffle(v.begin(), v.end(), engine);
  return v;
}

// Two threads that share the iterations, as a pool would.
void two_threads(size_t count, const std::function<void(size_t)>& body) {
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
  scalar::make(d)->run(in, x.data(), expected.data(), serial);
  float most = 0;
  for (float v : expected) most = std::max(most, std::fabs(v));
  for (Isa isa : {Isa::kAvx2, Isa::kAvx512}) {
    if (isa > selected_isa()) continue;
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
          std::printf("%s isa %d threads %d size %ldx%ld: [%ld] %g, expected %g\n", what, int(isa),
                      threads, long(in.size[1]), long(in.size[2]), long(i), got[i], expected[i]);
          ++failures;
          break;
        }
    }
  }
}

Window window(int64_t k, int64_t s, int64_t d, int64_t p) {
  Window w;
  for (int a : {1, 2}) {
    w.kernel[a] = k;
    w.stride[a] = s;
    w.dilation[a] = d;
    w.begin[a] = w.end[a] = p;
  }
  return w;
}

}  // namespace

int main() {
  for (int64_t width : {1, 7, 8, 9, 15, 16, 17, 31, 33, 47, 48, 49, 112, 113})
    for (int64_t rank : {1, 3, 4, 5, 7, 8, 9, 17})
      for (int64_t s : {1, 2, 3}) {
        const int64_t height = 6 + rank % 2, C = 4, G = 2, H = 2;
        const Window w = window(3, s, 1 + (s == 3), 2);
        const int64_t F = H * rank, plane = w.output(1, height) * w.output(2, width);
        const Image in{2, C, {1, height, width}};
        Monochromatic m{C,
                        2 * rank,
                        2,
                        w,
                        {-0.5f, 1.0f, 0.1f},
                        values(2 * C),
                        values(2 * rank * 9),
                        values(2 * rank),
                        shuffled(2 * rank)};
        compare("mono", m, in, 2 * 2 * rank * plane);
        Monochromatic few{2,
                          3 * rank,
                          3,
                          w,
                          {},
                          values(3 * 2),
                          values(3 * rank * 9),
                          values(3 * rank),
                          shuffled(3 * rank)};
        compare("mono of few channels", few, Image{2, 2, {1, height, width}}, 2 * 3 * rank * plane);
        for (bool depthwise : {false, true}) {
          const int64_t K1 = depthwise ? rank : 5;
          LowRank l{depthwise,
                    C,
                    F,
                    G,
                    H,
                    K1,
                    rank,
                    w,
                    {},
                    values(G * H * K1 * C / G),
                    values(G * H * rank * (depthwise ? 1 : K1) * 9),
                    values(F * G * rank),
                    values(F),
                    shuffled(C),
                    shuffled(F)};
          compare(depthwise ? "cp" : "tucker2", l, in, 2 * F * plane);
        }
        // One block, at stride 1 and from rank 8 on by Winograd.
        LowRank one{false,
                    C,
                    F,
                    1,
                    1,
                    9,
                    rank,
                    w,
                    {},
                    values(9 * C),
                    values(rank * 9 * 9),
                    values(F * rank),
                    values(F),
                    shuffled(C),
                    shuffled(F)};
        compare("tucker2 of one block", one, in, 2 * F * plane);
        compare("lrn",
                Lrn{1 + 2 * (rank % 4), 0.1f,
                    s == 1   ? 0.75f
                    : s == 2 ? 0.5f
                             : 0.3f,
                    1.0f},
                in, 2 * C * height * width);
      }
  // One block of many channels on a tall image: tasks that go down it in several strips and keep
  // the rows these share.
  for (int64_t width : {96, 112, 113})
    for (int64_t height : {69, 70})
      for (int64_t rank : {7, 9, 16, 17})
        for (int64_t shape = 0; shape < 4; ++shape) {
          const int64_t C = 24, F = 10, k = shape == 3 ? 5 : 3;
          const Window w = window(k, 1, shape == 2 ? 2 : 1, shape == 1 ? 0 : 6);
          const Image in{1, C, {1, height, width}};
          for (bool depthwise : {false, true}) {
            LowRank l{depthwise,
                      C,
                      F,
                      1,
                      1,
                      rank,
                      rank,
                      w,
                      {0.0f},
                      values(rank * C),
                      values(rank * (depthwise ? 1 : rank) * k * k),
                      values(F * rank),
                      values(F),
                      shuffled(C),
                      shuffled(F)};
            compare(depthwise ? "cp in strips" : "tucker2 in strips", l, in,
                    F * w.output(1, height) * w.output(2, width));
          }
        }
  std::printf("%d cases, %d failures\n", cases, failures);
  return failures != 0;
}
