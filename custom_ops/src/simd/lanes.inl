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
// Pixels of a tile of M vectors: registers for accumulators, weights and one broadcast.
template <int M>
constexpr int kMixPixels = M == 1 ? Vec::kRegisters - 4 : (Vec::kRegisters - 3) / 2;

// Tables of tiles by their number of pixels less one, filled one by one.
template <int M, int N>
constexpr void fill(MixTile* to) {
  to[N - 1] = mix_tile<M, N>;
  if constexpr (N > 1) fill<M, N - 1>(to);
}
template <int M>
struct MixTiles {
  MixTile tile[kMixPixels<M>];
  constexpr MixTiles() : tile() { fill<M, kMixPixels<M>>(tile); }
};
template <int D, int N>
constexpr void fill(DepthwiseTile* to) {
  to[N - 1] = depthwise_tile<D, N>;
  if constexpr (N > 1) fill<D, N - 1>(to);
}
template <int D>
struct DepthwiseTiles {
  DepthwiseTile tile[L];
  constexpr DepthwiseTiles() : tile() { fill<D, L>(tile); }
};
constexpr MixTiles<1> kMix1;
constexpr MixTiles<2> kMix2;
constexpr DepthwiseTiles<0> kDepthwise0;
constexpr DepthwiseTiles<1> kDepthwise1;
constexpr DepthwiseTiles<2> kDepthwise2;
constexpr DepthwiseTiles<4> kDepthwise4;

// Nearly equal parts of [0, n), none larger than `most`: first() to first() + count().
class Parts {
 public:
  Parts(int64_t n, int64_t most) : n_(n), left_(ceil_div(n, most)) { next(0); }
  bool more() const { return left_ > 0; }
  int64_t first() const { return first_; }
  int64_t count() const { return count_; }
  void next() {
    --left_;
    next(first_ + count_);
  }

 private:
  void next(int64_t first) {
    first_ = first;
    if (left_ > 0) count_ = ceil_div(n_ - first, left_);
  }
  int64_t n_, left_, first_ = 0, count_ = 0;
};

void mix(const float* x, const int64_t* source, int64_t plane, int64_t terms, const float* a,
         int64_t vectors, float* z, int64_t n) {
  const MixTile* tile = vectors == 2 ? kMix2.tile : kMix1.tile;
  for (Parts p(n, vectors == 2 ? kMixPixels<2> : kMixPixels<1>); p.more(); p.next())
    tile[p.count() - 1](x + p.first(), source, plane, terms, a, z + p.first() * vectors * L);
}

void depthwise(const Depthwise& d) {
  const DepthwiseTile* tile = d.step == L       ? kDepthwise1.tile
                              : d.step == 2 * L ? kDepthwise2.tile
                              : d.step == 4 * L ? kDepthwise4.tile
                                                : kDepthwise0.tile;
  for (Parts p(d.n, L); p.more(); p.next())
    for (int64_t m = 0; m < d.vectors; ++m)
      tile[p.count() - 1](d.z + p.first() * d.step + m * L, d.tap, d.taps, d.w + m * L,
                          d.vectors * L, d.step, lanes_of(d.lanes - m * L),
                          d.t + m * L * d.pitch + p.first(), d.pitch);
}
