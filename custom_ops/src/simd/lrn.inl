// v / base^beta; 0.75, 0.5 and 1 by square roots, any other exponent by the library's powf.
Vec::T power(Vec::T v, Vec::T base, float beta) {
  if (beta == 0.75f) {
    const Vec::T r = Vec::sqrt(base);
    return Vec::div(v, Vec::mul(r, Vec::sqrt(r)));
  }
  if (beta == 0.5f) return Vec::div(v, Vec::sqrt(base));
  if (beta == 1.0f) return Vec::div(v, base);
  alignas(64) float b[L];
  Vec::store(b, base);
  for (float& e : b) e = __builtin_powf(e, -beta);
  return Vec::mul(v, Vec::load(b));
}

// Channels outermost: every plane is read and written in runs of vectors; the window is summed
// afresh, which keeps the rounding of the reference.
void normalise(const Normalise& d, const float* x, float* y, int64_t first, int64_t last) {
  for (int64_t c = 0; c < d.channels; ++c) {
    const int64_t from = greatest(0, c - d.before), to = least(d.channels - 1, c + d.after);
    for (int64_t p = first; p < last; p += L) {
      const int m = lanes_of(last - p);
      Vec::T sum = Vec::set1(0.0f);
      for (int64_t k = from; k <= to; ++k) {
        const Vec::T v = Vec::load(x + k * d.plane + p, m);
        sum = Vec::fma(v, v, sum);
      }
      const Vec::T base = Vec::fma(Vec::set1(d.scale), sum, Vec::set1(d.bias));
      const Vec::T v = Vec::load(x + c * d.plane + p, m);
      Vec::store(y + c * d.plane + p, power(v, base, d.beta), m);
    }
  }
}
