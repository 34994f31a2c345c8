// Sizes, and memory on cache lines.
constexpr int L = Vec::L;
constexpr bool kPrefetch = false;
constexpr int kAhead = 8;       // terms between a load and its prefetch
constexpr int kSlack = 16 * L;  // floats past the last position that a full tile may read

int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
int64_t ceil_div(int64_t n, int64_t by) { return (n + by - 1) / by; }
// A row length that is an odd number of cache lines, so that channels do not fall into the same
// cache sets.
int64_t odd_lines(int64_t n) { return (ceil_div(n, 16) | 1) * 16; }

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
