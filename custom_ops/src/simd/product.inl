// y[m][p] = bias[m] + sum_t w[t][m] z[offset[t] + p], pixels in lanes: the register-tiled product
// of all stages.
Vec::T activate(const Activation& a, Vec::T v) {
  // Operand order as in the reference: a NaN passes through min and max.
  v = Vec::min(Vec::set1(a.max), Vec::max(Vec::set1(a.min), v));
  const Vec::T zero = Vec::set1(0.0f);
  if (a.alpha != 1.0f) v = Vec::fma(Vec::set1(a.alpha), Vec::min(zero, v), Vec::max(zero, v));
  return v;
}

template <int MR, int NR, bool kAct>
void tile(const float* z, const int64_t* offset, int64_t terms, const float* w, const float* bias,
          float* const* y, int64_t at, int last, const Activation& act) {
  // Outputs are mostly far from the first cache level: their lines are asked for while the sums
  // grow. Long sums would push them out again.
  if (kAct && terms < 256)
    for (int m = 0; m < MR; ++m)
      for (int n = 0; n < NR; n += 16 / L) __builtin_prefetch(y[m] + at + n * L, 1);
  Vec::T acc[MR][NR];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) acc[m][n] = Vec::set1(bias ? bias[m] : 0.0f);
  for (int64_t t = 0; t < terms; ++t, w += MR) {
    const float* p = z + offset[t];
    // The next block's weights, which are read once a run, from far away.
    __builtin_prefetch(w + terms * MR, 0, 2);
    Vec::T b[NR];
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) b[n] = Vec::load(p + n * L);
#pragma GCC unroll 8
    for (int m = 0; m < MR; ++m) {
      const Vec::T a = Vec::set1(w[m]);
#pragma GCC unroll 8
      for (int n = 0; n < NR; ++n) acc[m][n] = Vec::fma(a, b[n], acc[m][n]);
    }
  }
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int n = 0; n < NR; ++n) {
      const Vec::T v = kAct ? activate(act, acc[m][n]) : acc[m][n];
      float* to = y[m] + at + n * L;
      if (n < NR - 1 || last == L)
        Vec::store(to, v);
      else
        Vec::store(to, v, last);
    }
}

using Tile = void (*)(const float*, const int64_t*, int64_t, const float*, const float*,
                      float* const*, int64_t, int, const Activation&);
constexpr int kMaxVectors = 7;

constexpr bool fits(int m, int n) {
  return m <= Vec::kRows && m * n + n + 1 <= Vec::kRegisters && m * n <= Vec::kRegisters - 4;
}
template <int M, int N, bool kAct>
constexpr Tile pick() {
  if constexpr (fits(M, N))
    return tile<M, N, kAct>;
  else
    return nullptr;
}
// The tiles of a block of M rows, by their vectors, and the most vectors that fit.
struct Tiles {
  Tile tile[kMaxVectors];
  int most;
};
template <int M, bool kAct>
constexpr Tiles tiles_of() {
  Tiles t = {{pick<M, 1, kAct>(), pick<M, 2, kAct>(), pick<M, 3, kAct>(), pick<M, 4, kAct>(),
              pick<M, 5, kAct>(), pick<M, 6, kAct>(), pick<M, 7, kAct>()},
             1};
  while (t.most < kMaxVectors && fits(M, t.most + 1)) ++t.most;
  return t;
}
constexpr Tiles kPlain[kMostRows] = {
    tiles_of<1, false>(), tiles_of<2, false>(), tiles_of<3, false>(), tiles_of<4, false>(),
    tiles_of<5, false>(), tiles_of<6, false>(), tiles_of<7, false>(), tiles_of<8, false>()};
constexpr Tiles kActive[kMostRows] = {tiles_of<1, true>(), tiles_of<2, true>(), tiles_of<3, true>(),
                                      tiles_of<4, true>(), tiles_of<5, true>(), tiles_of<6, true>(),
                                      tiles_of<7, true>(), tiles_of<8, true>()};

void step(Ahead* a, int64_t lines) {
  for (; lines > 0 && a->now < a->count; --lines) {
    Ahead::Part& p = a->parts[a->now];
    __builtin_prefetch(p.base + a->done, 0, 2);  // to the second cache level
    if ((a->done += 16) < p.length) continue;
    a->done = 0;
    p.base += p.pitch;
    if (--p.planes == 0) ++a->now;
  }
}

void product(const Product& p) {
  const Tiles& table = (p.activation ? kActive : kPlain)[p.rows - 1];
  const Activation none;
  const Activation& act = p.activation ? *p.activation : none;
  const int64_t vectors = ceil_div(p.count, L), tiles = ceil_div(vectors, table.most);
  for (int64_t run = 0; run < p.runs; ++run)
    for (int64_t i = 0, v = 0; i < tiles; ++i) {
      const int64_t n = ceil_div(vectors - v, tiles - i);
      const int last = v + n == vectors ? static_cast<int>(p.count - (vectors - 1) * L) : L;
      table.tile[n - 1](p.z + run * p.z_step + v * L, p.offset, p.terms, p.weights, p.bias, p.y,
                        run * p.y_step + v * L, last, act);
      v += n;
      // As many lines as terms: outputs and inputs of a layer are fewer.
      if (p.ahead) step(p.ahead, p.terms);
    }
}
