// Scratch memory that survives a run: as many buffers as ran at once, so memory stops growing.
#pragma once
#include <mutex>

#include "vector.h"

namespace onnx_lowrank {

class Scratch {
 public:
  struct Free {
    void operator()(float* p) const { std::free(p); }
  };
  struct Buffer {
    std::unique_ptr<float, Free> data;
    size_t size = 0;
  };
  class Lease {
   public:
    Lease(Scratch& s, size_t size) : s_(s) {
      {
        std::lock_guard<std::mutex> lock(s.mutex_);
        if (s.idle_.empty())
          s.idle_.reserve(++s.buffers_);  // so that giving a buffer back cannot fail
        else {
          b_ = std::move(s.idle_.back());
          s.idle_.pop_back();
        }
      }
      if (b_.size < size) {
        b_ = {};
        b_.data.reset(
            static_cast<float*>(std::aligned_alloc(64, round_up(size * sizeof(float), 64))));
        if (!b_.data) throw std::bad_alloc();
        b_.size = size;
      }
    }
    ~Lease() {
      std::lock_guard<std::mutex> lock(s_.mutex_);
      s_.idle_.push_back(std::move(b_));
    }
    float* data() { return b_.data.get(); }

   private:
    Scratch& s_;
    Buffer b_;
  };

 private:
  std::mutex mutex_;
  std::vector<Buffer> idle_;
  size_t buffers_ = 0;
};

}  // namespace onnx_lowrank
