// What the vector kernels of all ops share.
//
// Every stage is one product: rows of weights times "positions", vectors of neighbouring pixels,
//   y[m][p] = bias[m] + sum_t w[t][m] z[offset[t] + p],
// where t runs over channels, taps, or both. A padded, phase-split copy of a block of image rows
// makes a strided, dilated window such a sum with fixed offsets: position p = row * pitch + column,
// and no load needs a condition. The functions of an instruction set do the arithmetic (simd.h);
// what is here plans, packs and shares out the work, and is compiled for any CPU.
#pragma once
#include <cstdlib>
#include <new>

#include "../kernels.h"

namespace onnx_lowrank {

inline int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
inline int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }
// A row length that is an odd number of cache lines, so that channels do not fall into the same
// cache sets.
inline int64_t odd_lines(int64_t n) { return (ceil_div(n, 16) | 1) * 16; }
// Floats past the last position that a full tile may read.
inline int64_t slack(const Simd& v) { return 16 * v.lanes; }

// Weights on cache lines.
template <class E>
struct Aligned {
  using value_type = E;
  Aligned() = default;
  template <class O>
  Aligned(const Aligned<O>&) {}
  E* allocate(size_t n) {
    if (void* p = std::aligned_alloc(64, round_up(n * sizeof(E), 64))) return static_cast<E*>(p);
    throw std::bad_alloc();
  }
  void deallocate(E* p, size_t) { std::free(p); }
  template <class O>
  bool operator==(const Aligned<O>&) const {
    return true;
  }
  template <class O>
  bool operator!=(const Aligned<O>&) const {
    return false;
  }
};

// Rows of weights cut into nearly equal blocks of at most `max_rows`, each stored [term][row].
struct Panel {
  struct Block {
    int64_t first, rows;
    size_t at;
  };
  std::vector<Block> blocks;
  std::vector<float> data;
  int64_t terms;

  Panel(const Simd& v, int64_t rows, int64_t terms_,
        const std::function<float(int64_t row, int64_t term)>& value)
      : terms(terms_) {
    const int64_t count = ceil_div(rows, v.max_rows);
    for (int64_t i = 0, first = 0; i < count; ++i) {
      const int64_t n = ceil_div(rows - first, count - i);
      blocks.push_back({first, n, data.size()});
      for (int64_t t = 0; t < terms; ++t)
        for (int64_t m = 0; m < n; ++m) data.push_back(value(first + m, t));
      first += n;
    }
  }
};

// What a product reads and how often; the rest is the panel's.
struct Positions {
  const float* z;
  const int64_t* offset;
  int64_t count;
  int64_t runs = 1, z_step = 0, y_step = 0;
};

// The product of all blocks of a panel; `y(row)` is where a row goes.
template <class Out>
void multiply(const Simd& v, const Panel& panel, const Positions& at, const float* bias,
              const Activation* activation, const Out& y, Ahead* ahead = nullptr) {
  for (const Panel::Block& b : panel.blocks) {
    float* rows[kMostRows];
    for (int64_t m = 0; m < b.rows; ++m) rows[m] = y(b.first + m);
    v.product({panel.data.data() + b.at, panel.terms, static_cast<int>(b.rows),
               bias ? bias + b.first : nullptr, at.z, at.offset, activation, rows, at.count,
               at.runs, at.z_step, at.y_step, ahead});
  }
}

// Adds lines to ask for; two parts at most.
inline void add(Ahead* a, const float* base, int64_t planes, int64_t pitch, int64_t length) {
  if (planes > 0 && length > 0) a->parts[a->count++] = {base, planes, pitch, length};
}

}  // namespace onnx_lowrank
