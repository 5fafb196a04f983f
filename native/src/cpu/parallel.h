// A loop over independent items on several threads.
#pragma once

#include <cstdint>
#include <functional>

namespace scaledit::cpu {

// Calls body(item, thread) once for every item in 0 ... items - 1, with thread in 0 ... threads - 1. Threads take items
// in ascending order as they become free. The first exception of a body ends the loop and is thrown here. Where the
// system grants fewer threads, fewer do the work.
void parallel_for(int threads, std::int64_t items, const std::function<void(std::int64_t item, int thread)>& body);

}  // namespace scaledit::cpu
