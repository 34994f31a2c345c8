// Tiles with channels in lanes: a vector holds L channels of one pixel.

// z[i][M L] for N neighbouring pixels.
template <int M, int N>
void mix_tile(const float* x, const int64_t* source, int64_t plane, int64_t terms, const float* a,
              float* z) {
  Vec::T acc[N][M];
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) acc[i][m] = Vec::set1(0.0f);
  for (int64_t t = 0; t < terms; ++t, a += M * L) {
    const float* p = x + source[t] * plane;
    Vec::T w[M];
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) w[m] = Vec::load(a + m * L);
#pragma GCC unroll 32
    for (int i = 0; i < N; ++i) {
      const Vec::T b = Vec::set1(p[i]);
#pragma GCC unroll 2
      for (int m = 0; m < M; ++m) acc[i][m] = Vec::fma(w[m], b, acc[i][m]);
    }
  }
#pragma GCC unroll 32
  for (int i = 0; i < N; ++i)
#pragma GCC unroll 2
    for (int m = 0; m < M; ++m) Vec::store(z + (i * M + m) * L, acc[i][m]);
}

// t[lane][i] for N neighbouring outputs and `lanes` lanes; outputs are `step` floats apart in z, D
// vectors where D is not 0.
template <int D, int N>
void depthwise_tile(const float* z, const int64_t* tap, int64_t taps, const float* w, int64_t pitch,
                    int64_t step, int lanes, float* t, int64_t tp) {
  Vec::T acc[L];
#pragma GCC unroll 16
  for (int i = 0; i < L; ++i) acc[i] = Vec::set1(0.0f);
  for (int64_t k = 0; k < taps; ++k, w += pitch) {
    const float* p = z + tap[k];
    const Vec::T c = Vec::load(w);
#pragma GCC unroll 16
    for (int i = 0; i < N; ++i) acc[i] = Vec::fma(c, Vec::load(p + i * (D ? D * L : step)), acc[i]);
  }
  Vec::transpose(acc);
  if (lanes == L) {
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j) Vec::store(t + j * tp, acc[j], N);
  } else {
#pragma GCC unroll 16
    for (int j = 0; j < L; ++j)
      if (j < lanes) Vec::store(t + j * tp, acc[j], N);
  }
}

using MixTile = void (*)(const float*, const int64_t*, int64_t, int64_t, const float*, float*);
using DepthwiseTile = void (*)(const float*, const int64_t*, int64_t, const float*, int64_t,
                               int64_t, int, float*, int64_t);
constexpr int kMixPixels[] = {
    0, Vec::kRegisters - 4,
    (Vec::kRegisters - 3) / 2};  // by M: accumulators, weights, one broadcast

template <int M, size_t... I>
constexpr std::array<MixTile, sizeof...(I)> mix_table(std::index_sequence<I...>) {
  return {mix_tile<M, int(I) + 1>...};
}
template <int D, size_t... I>
constexpr std::array<DepthwiseTile, sizeof...(I)> depthwise_table(std::index_sequence<I...>) {
  return {depthwise_tile<D, int(I) + 1>...};
}
constexpr auto kMix1 = mix_table<1>(std::make_index_sequence<kMixPixels[1]>());
constexpr auto kMix2 = mix_table<2>(std::make_index_sequence<kMixPixels[2]>());
constexpr auto kDepthwise0 = depthwise_table<0>(std::make_index_sequence<L>());
constexpr auto kDepthwise1 = depthwise_table<1>(std::make_index_sequence<L>());
constexpr auto kDepthwise2 = depthwise_table<2>(std::make_index_sequence<L>());
constexpr auto kDepthwise4 = depthwise_table<4>(std::make_index_sequence<L>());

// body(first, count) for nearly equal parts of [0, n), none larger than `most`.
template <class Body>
void split(int64_t n, int64_t most, const Body& body) {
  const int64_t parts = ceil_div(n, most);
  for (int64_t i = 0, first = 0; i < parts; ++i) {
    const int64_t count = ceil_div(n - first, parts - i);
    body(first, count);
    first += count;
  }
}
