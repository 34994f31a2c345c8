// The vector kernels, written once over `Vec`; included by one file per instruction set, inside its
// own namespace.
//
// Every stage is one product: rows of weights times "positions", vectors of neighbouring pixels,
//   y[m][p] = bias[m] + sum_t w[t][m] z[offset[t] + p],
// where t runs over channels, taps, or both. A padded, phase-split copy of a block of image rows
// makes a strided, dilated window such a sum with fixed offsets: position p = row * pitch + column,
// and no load needs a condition.

#include "arithmetic.inl"
#include "product.inl"
#include "layout.inl"
#include "scratch.inl"
#include "threads.inl"
#include "lanes.inl"
#include "winograd.inl"
#include "monochromatic.inl"
#include "tucker2.inl"
#include "cp.inl"
#include "lrn.inl"

std::unique_ptr<Kernel> make(const Monochromatic& d) {
  return std::make_unique<MonochromaticKernel>(d);
}
std::unique_ptr<Kernel> make(const LowRank& d) {
  if (d.depthwise) return std::make_unique<CpKernel>(d);
  return std::make_unique<Tucker2Kernel>(d);
}
std::unique_ptr<Kernel> make(const Lrn& d) { return std::make_unique<LrnKernel>(d); }
