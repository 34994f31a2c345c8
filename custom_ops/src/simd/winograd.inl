// Winograd's F(2x2, 3x3) on 4x4 patches d ("tiles"), one row of them in lanes:
//   Bt = [1 0 -1 0; 0 1 1 0; 0 -1 1 0; 0 1 0 -1]   At = [1 1 1 0; 0 1 -1 -1]
// Entries are 0 and +-1: a patch's values are sums of four, so the float32 error grows by a small
// factor only.
void put(float* to, Vec::T v, int n) {
  if (n == L)
    Vec::store(to, v);
  else
    Vec::store(to, v, n);
}

void winograd_input(const float* z, int64_t pitch, int64_t tiles, float* u, int64_t pitch_u) {
  for (int64_t v = 0; v < tiles; v += L) {
    Vec::T c[4][4];
#pragma GCC unroll 4
    for (int i = 0; i < 4; ++i) {
      const float* p = z + i * pitch + 2 * v;
      const Vec::T a = Vec::load(p), b = Vec::load(p + L), a2 = Vec::load(p + 2),
                   b2 = Vec::load(p + L + 2);
      const Vec::T d0 = Vec::even(a, b), d1 = Vec::odd(a, b), d2 = Vec::even(a2, b2),
                   d3 = Vec::odd(a2, b2);
      c[i][0] = Vec::sub(d0, d2);
      c[i][1] = Vec::add(d1, d2);
      c[i][2] = Vec::sub(d2, d1);
      c[i][3] = Vec::sub(d1, d3);
    }
    const int n = lanes_of(tiles - v);
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      const Vec::T r[4] = {Vec::sub(c[0][j], c[2][j]), Vec::add(c[1][j], c[2][j]),
                           Vec::sub(c[2][j], c[1][j]), Vec::sub(c[1][j], c[3][j])};
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) put(u + (4 * i + j) * pitch_u + v, r[i], n);
    }
  }
}

void winograd_output(const float* m, int64_t pitch_m, int64_t width, bool both, float* y) {
  for (int64_t v = 0; 2 * v < width; v += L) {
    Vec::T s[2][4];
#pragma GCC unroll 4
    for (int j = 0; j < 4; ++j) {
      Vec::T t[4];
#pragma GCC unroll 4
      for (int i = 0; i < 4; ++i) t[i] = Vec::load(m + (4 * i + j) * pitch_m + v);
      s[0][j] = Vec::add(Vec::add(t[0], t[1]), t[2]);
      s[1][j] = Vec::sub(Vec::sub(t[1], t[2]), t[3]);
    }
#pragma GCC unroll 2
    for (int i = 0; i < 2; ++i) {
      if (i && !both) break;
      const Vec::T even = Vec::add(Vec::add(s[i][0], s[i][1]), s[i][2]),
                   odd = Vec::sub(Vec::sub(s[i][1], s[i][2]), s[i][3]);
      const int64_t left = width - 2 * v;
      float* to = y + i * width + 2 * v;
      put(to, Vec::low(even, odd), lanes_of(left));
      if (left > L) put(to + L, Vec::high(even, odd), lanes_of(left - L));
    }
  }
}
