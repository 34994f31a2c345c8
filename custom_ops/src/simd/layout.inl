// A block of rows of an image, padded and split by stride phase: [row phase][column
// phase][row][pitch]; or, `unrolled`, a copy of what each column of the window reads, [column][row
// phase][row][output width], whose positions are outputs without gaps.
struct Layout {
  bool unrolled;
  int64_t sy, sx, ky, kx, dy, dx, top, left, width, out_width, pitch, rows, plane;

  Layout(const Window& w, int64_t in_width, int64_t strip, bool unrolled_ = false)
      : unrolled(unrolled_),
        sy(w.stride[1]),
        sx(w.stride[2]),
        ky(w.kernel[1]),
        kx(w.kernel[2]),
        dy(w.dilation[1]),
        dx(w.dilation[2]),
        top(w.begin[1]),
        left(w.begin[2]),
        width(in_width),
        out_width(w.output(2, in_width)) {
    pitch = out_width + (unrolled ? 0 : gap());
    rows = strip + (ky - 1) * dy / sy;
    plane = Size(sy) * (unrolled ? kx : sx) * rows * pitch;
  }
  // Positions between the rows of outputs, unless unrolled.
  int64_t gap() const { return (kx - 1) * dx / sx; }
  int64_t positions(int64_t strip) const { return (strip - 1) * pitch + out_width; }
  // Input rows [first, last) that output rows [y, y + count) read, before clipping to the image.
  int64_t first_row(int64_t y) const { return y * sy - top; }
  int64_t last_row(int64_t y, int64_t count) const {
    return (y + count - 1) * sy - top + (ky - 1) * dy + 1;
  }
  std::vector<int64_t> offsets(int64_t channels) const {
    std::vector<int64_t> o;
    o.reserve(Size(channels) * ky * kx + kAhead);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < ky; ++i)
        for (int64_t j = 0; j < kx; ++j)
          o.push_back(unrolled
                          ? c * plane + ((j * sy + i * dy % sy) * rows + i * dy / sy) * pitch
                          : c * plane +
                                ((i * dy % sy * sx + j * dx % sx) * rows + i * dy / sy) * pitch +
                                j * dx / sx);
    o.resize(o.size() + kAhead);
    return o;
  }
  // Writes input row `r` (counted from the block's first) from `padded`, which holds `left` zeros,
  // the row, and zeros.
  void put(float* z, int64_t r, const float* padded) const {
    float* to = z + (r % sy * sx * rows + r / sy) * pitch;
    if (sx == 1) {
      copy(to, padded, pitch);
    } else if (sx == 2) {
      float* odd = to + rows * pitch;
      int64_t i = 0;
      for (; i + L <= pitch; i += L) {
        const Vec::T a = Vec::load(padded + 2 * i), b = Vec::load(padded + 2 * i + L);
        Vec::store(to + i, Vec::even(a, b));
        Vec::store(odd + i, Vec::odd(a, b));
      }
      if (i < pitch) {
        const Vec::T a = Vec::load(padded + 2 * i), b = Vec::load(padded + 2 * i + L);
        Vec::store(to + i, Vec::even(a, b), static_cast<int>(pitch - i));
        Vec::store(odd + i, Vec::odd(a, b), static_cast<int>(pitch - i));
      }
    } else {
      for (int64_t ph = 0; ph < sx; ++ph)
        for (int64_t i = 0; i < pitch; ++i) to[ph * rows * pitch + i] = padded[i * sx + ph];
    }
  }
  // As `put` for column stride 1, where the padding of `z` is zero already.
  void put_inside(float* z, int64_t r, const float* row) const {
    if (unrolled) {
      for (int64_t j = 0; j < kx; ++j) {
        const int64_t shift = j * dx - left, from = std::max<int64_t>(0, -shift),
                      to = std::min(out_width, width - shift);
        if (from < to)
          copy(z + ((j * sy + r % sy) * rows + r / sy) * pitch + from, row + from + shift,
               to - from);
      }
      return;
    }
    const int64_t n = std::min(width, pitch - left);
    if (n > 0) copy(z + (r % sy * rows + r / sy) * pitch + left, row, n);
  }
  void clear(float* z, int64_t r) const {
    for (int64_t i = 0; i < (unrolled ? kx : sx); ++i)
      std::fill_n(z + ((unrolled ? i * sy + r % sy : r % sy * sx + i) * rows + r / sy) * pitch,
                  pitch, 0.0f);
  }
  int64_t padded_size() const { return std::max(left + width, pitch * sx) + kSlack; }
  static void copy(float* to, const float* from, int64_t n) {
    int64_t i = 0;
    for (; i + L <= n; i += L) Vec::store(to + i, Vec::load(from + i));
    if (i < n)
      Vec::store(to + i, Vec::load(from + i, static_cast<int>(n - i)), static_cast<int>(n - i));
  }
};
