// LRN: channels outermost, pixels in lanes.
class LrnKernel : public Kernel {
 public:
  explicit LrnKernel(const Lrn& d) : d_(d) {}
  void run(const Image& in, const float* x, float* y, const ParallelFor& parallel) override {
    const int64_t plane = in.size[0] * in.size[1] * in.size[2], C = in.channels;
    const int64_t blocks = ceil_div(plane, L), chunk = std::min<int64_t>(blocks, 64),
                  chunks = ceil_div(blocks, chunk);
    const int64_t before = (d_.size - 1) / 2, after = d_.size - 1 - before;
    parallel(in.batch * chunks, [&](size_t task) {
      const int64_t n = task / chunks, b0 = task % chunks * chunk,
                    b1 = std::min(blocks, b0 + chunk);
      // Channels outermost: every plane is read and written in runs of `chunk` vectors; the window
      // is summed afresh, which keeps the rounding of the reference.
      for (int64_t c = 0; c < C; ++c) {
        const int64_t from = std::max<int64_t>(0, c - before), to = std::min(C - 1, c + after);
        for (int64_t b = b0; b < b1; ++b) {
          const int64_t p = b * L;
          const int m = static_cast<int>(std::min<int64_t>(L, plane - p));
          const float* at = x + n * C * plane + p;
          Vec::T sum = Vec::set1(0.0f);
          for (int64_t k = from; k <= to; ++k) {
            const Vec::T v = Vec::load(at + k * plane, m);
            sum = Vec::fma(v, v, sum);
          }
          const Vec::T base =
              Vec::fma(Vec::set1(d_.alpha / static_cast<float>(d_.size)), sum, Vec::set1(d_.bias));
          const Vec::T v = Vec::load(at + c * plane, m);
          Vec::store(y + (n * C + c) * plane + p, power(v, base), m);
        }
      }
    });
  }

 private:
  // v / base^beta; 0.75, 0.5 and 1 by square roots, any other exponent by the library's pow.
  Vec::T power(Vec::T v, Vec::T base) const {
    if (d_.beta == 0.75f) {
      const Vec::T r = Vec::sqrt(base);
      return Vec::div(v, Vec::mul(r, Vec::sqrt(r)));
    }
    if (d_.beta == 0.5f) return Vec::div(v, Vec::sqrt(base));
    if (d_.beta == 1.0f) return Vec::div(v, base);
    alignas(64) float b[L];
    Vec::store(b, base);
    for (float& e : b) e = std::pow(e, -d_.beta);
    return Vec::mul(v, Vec::load(b));
  }
  Lrn d_;
};
