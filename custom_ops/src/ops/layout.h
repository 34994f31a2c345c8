#pragma once
#include "vector.h"

namespace onnx_lowrank {

// A block of rows of an image, padded and split by stride phase:
//   [row phase][column phase][row][pitch]
// or, `unrolled`, a copy of what each column of the window reads, whose positions are outputs
// without gaps:
//   [column][row phase][row][output width]
struct Layout {
  const Simd& simd;
  bool unrolled;
  int64_t sy, sx, ky, kx, dy, dx, top, left, width, out_width, pitch, rows, plane;

  Layout(const Simd& v, const Window& w, int64_t in_width, int64_t strip, bool unrolled_ = false)
      : simd(v),
        unrolled(unrolled_),
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
    o.reserve(Size(channels) * ky * kx);
    for (int64_t c = 0; c < channels; ++c)
      for (int64_t i = 0; i < ky; ++i)
        for (int64_t j = 0; j < kx; ++j)
          o.push_back(unrolled
                          ? c * plane + ((j * sy + i * dy % sy) * rows + i * dy / sy) * pitch
                          : c * plane +
                                ((i * dy % sy * sx + j * dx % sx) * rows + i * dy / sy) * pitch +
                                j * dx / sx);
    return o;
  }
  // Writes input row `r` (counted from the block's first) from `padded`, which holds `left` zeros,
  // the row, and zeros.
  void put(float* z, int64_t r, const float* padded) const {
    simd.split(z + (r % sy * sx * rows + r / sy) * pitch, rows * pitch, padded, sx, pitch);
  }
  // As `put` for column stride 1 and `count` rows from `r` on, where the padding of `z` is zero
  // already; `from` holds rows without padding.
  void put_inside(float* z, int64_t r, int64_t count, const float* from) const {
    // Rows of one phase are neighbours in z.
    for (int64_t i = 0; i < std::min(sy, count); ++i, ++r, from += width) {
      const int64_t same = ceil_div(count - i, sy);
      for (int64_t j = 0; j < (unrolled ? kx : 1); ++j) {
        const int64_t shift = unrolled ? j * dx - left : -left,
                      first = std::max<int64_t>(0, -shift), last = std::min(pitch, width - shift);
        if (first < last)
          simd.copy(z + ((j * sy + r % sy) * rows + r / sy) * pitch + first, pitch,
                    from + first + shift, sy * width, same, last - first);
      }
    }
  }
  void clear(float* z, int64_t r) const {
    for (int64_t i = 0; i < (unrolled ? kx : sx); ++i)
      std::fill_n(z + ((unrolled ? i * sy + r % sy : r % sy * sx + i) * rows + r / sy) * pitch,
                  pitch, 0.0f);
  }
  int64_t padded_size() const { return std::max(left + width, pitch * sx) + slack(simd); }
};

}  // namespace onnx_lowrank
