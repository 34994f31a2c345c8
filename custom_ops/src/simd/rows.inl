// Rows of floats: copies, stride phases, and sums of few planes.
void copy(float* to, int64_t to_step, const float* from, int64_t from_step, int64_t rows,
          int64_t n) {
  for (int64_t r = 0; r < rows; ++r, to += to_step, from += from_step) {
    int64_t i = 0;
    for (; i + L <= n; i += L) Vec::store(to + i, Vec::load(from + i));
    if (i < n) Vec::store(to + i, Vec::load(from + i, lanes_of(n - i)), lanes_of(n - i));
  }
}

void split(float* to, int64_t phase, const float* from, int64_t stride, int64_t n) {
  if (stride == 1) return copy(to, 0, from, 0, 1, n);
  if (stride == 2) {
    float* odd = to + phase;
    int64_t i = 0;
    for (; i + L <= n; i += L) {
      const Vec::T a = Vec::load(from + 2 * i), b = Vec::load(from + 2 * i + L);
      Vec::store(to + i, Vec::even(a, b));
      Vec::store(odd + i, Vec::odd(a, b));
    }
    if (i < n) {
      const Vec::T a = Vec::load(from + 2 * i), b = Vec::load(from + 2 * i + L);
      Vec::store(to + i, Vec::even(a, b), lanes_of(n - i));
      Vec::store(odd + i, Vec::odd(a, b), lanes_of(n - i));
    }
    return;
  }
  for (int64_t s = 0; s < stride; ++s)
    for (int64_t i = 0; i < n; ++i) to[s * phase + i] = from[i * stride + s];
}

void combine(float* to, const float* from, int64_t plane, const float* w, int64_t terms,
             int64_t n) {
  for (int64_t p = 0; p < n; p += L) {
    const int m = lanes_of(n - p);
    Vec::T sum = Vec::set1(0.0f);
    for (int64_t i = 0; i < terms; ++i)
      sum = Vec::fma(Vec::set1(w[i]), Vec::load(from + i * plane + p, m), sum);
    Vec::store(to + p, sum, m);
  }
}
