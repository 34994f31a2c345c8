// What a node may ask for, and sizes that cannot overflow. Within these limits the kernels' own
// index arithmetic, sums of products of two or three sizes that were checked, stays below 2^63.
#pragma once
#include <cstdint>
#include <stdexcept>
#include <string>
#include <vector>

namespace onnx_lowrank {

struct Error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

inline void require(bool ok, const std::string& message) {
  if (!ok) throw Error(message);
}

// An axis of a tensor, a stride, a dilation, a pad, the reach of a window, the size of an LRN.
constexpr int64_t kMostExtent = (int64_t{1} << 31) - 1;
// A tensor or a buffer: 256 GiB of float32.
constexpr int64_t kMostElements = int64_t{1} << 36;
// Pads may make of X this many times its positions and the kernel's, and a small image in any case:
// beyond, a file of some bytes would ask for any amount of time and memory.
constexpr int64_t kMostPadding = 64, kSmallImage = 1 << 20;
// Channels that LRN adds up anew for every channel.
constexpr int64_t kMostSummed = 4096;

// A number of elements: its sums and products throw where they leave [0, kMostElements].
class Size {
 public:
  Size(int64_t value) : value_(value) {
    require(value >= 0 && value <= kMostElements,
            "more than " + std::to_string(kMostElements) + " elements in one tensor or buffer");
  }
  operator int64_t() const { return value_; }
  friend Size operator*(Size a, Size b) {
    int64_t product = 0;
    return __builtin_mul_overflow(a.value_, b.value_, &product) ? Size(kMostElements + 1)
                                                                : Size(product);
  }
  friend Size operator+(Size a, Size b) { return Size(a.value_ + b.value_); }
  template <class N>
  friend Size operator*(Size a, N b) {
    return a * Size(b);
  }
  template <class N>
  friend Size operator+(Size a, N b) {
    return a + Size(b);
  }

 private:
  int64_t value_;
};

inline Size count_of(const std::vector<int64_t>& shape) {
  Size n = 1;
  for (int64_t d : shape) n = n * d;
  return n;
}

}  // namespace onnx_lowrank
