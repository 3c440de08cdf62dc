// Torch's memory for tensors on a CPU: freed blocks are kept for the next ones, and the process holds what its
// tensors are.
//
// A step asks for the same sizes as the one before. Returned to the system, each page of them costs microseconds
// again on a virtual machine. Kept by malloc, blocks of an alignment do not fit into the holes that their like have
// left (glibc's bug 14581), and a run holds a third more than its tensors, then more with every new size.
//
//   live + idle <= the most that was ever live; what would be over that is returned, oldest first

#include <c10/core/Allocator.h>
#include <c10/core/CPUAllocator.h>

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <unordered_map>
#include <vector>

namespace {

constexpr size_t LARGE = 1 << 20;  // bytes; smaller ones are malloc's
constexpr size_t PAGE = 4096;
const c10::Device CPU(c10::DeviceType::CPU);

struct Block {
    void* start;
    size_t size;
};

struct Blocks {
    std::mutex mutex;
    std::unordered_map<void*, size_t> live;
    std::vector<Block> idle;  // oldest first
    size_t live_bytes = 0, idle_bytes = 0, most = 0;

    void* take(size_t wanted) {
        const size_t size = (wanted + PAGE - 1) / PAGE * PAGE;
        std::lock_guard<std::mutex> lock(mutex);
        auto best = idle.end();
        for (auto each = idle.begin(); each != idle.end(); ++each)
            if (each->size >= size && each->size <= size + size / 8 && (best == idle.end() || each->size < best->size))
                best = each;
        Block block{nullptr, size};
        if (best != idle.end()) {
            block = *best;
            idle_bytes -= block.size;
            idle.erase(best);
        } else {
            const size_t most_then = std::max(most, live_bytes + size);
            while (!idle.empty() && live_bytes + size + idle_bytes > most_then) drop_oldest();
            block.start = map(size);
            while (block.start == nullptr && !idle.empty()) {
                drop_oldest();
                block.start = map(size);
            }
            if (block.start == nullptr) return nullptr;
        }
        live[block.start] = block.size;
        live_bytes += block.size;
        most = std::max(most, live_bytes);
        return block.start;
    }

    // Whether it was one of these.
    bool give(void* start) {
        std::lock_guard<std::mutex> lock(mutex);
        const auto found = live.find(start);
        if (found == live.end()) return false;
        idle.push_back({start, found->second});
        live_bytes -= found->second;
        idle_bytes += found->second;
        live.erase(found);
        return true;
    }

    void drop_oldest() {
        munmap(idle.front().start, idle.front().size);
        idle_bytes -= idle.front().size;
        idle.erase(idle.begin());
    }

    static void* map(size_t size) {
        void* start = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        return start == MAP_FAILED ? nullptr : start;
    }
};

Blocks& blocks() {
    static Blocks* kept = new Blocks;  // never destroyed: tensors may be freed while the process ends
    return *kept;
}

void release(void* start) {
    if (start == nullptr) return;
    c10::profiledCPUMemoryReporter().Delete(start);
    // What malloc gave, before or since, is seldom at a page's start.
    if (reinterpret_cast<uintptr_t>(start) % PAGE != 0 || !blocks().give(start)) std::free(start);
}

struct Kept final : c10::Allocator {
    c10::DataPtr allocate(size_t size) override {
        void* start = nullptr;
        if (size >= LARGE)
            start = blocks().take(size);
        else if (size > 0 && posix_memalign(&start, 64, size) != 0)
            start = nullptr;
        if (start == nullptr && size > 0) return c10::GetDefaultCPUAllocator()->allocate(size);  // says what failed
        c10::profiledCPUMemoryReporter().New(start, size);
        return {start, start, &release, CPU};
    }
    c10::DeleterFnPtr raw_deleter() const override { return &release; }
    void copy_data(void* to, const void* from, size_t size) const override { default_copy_data(to, from, size); }
};

}  // namespace

extern "C" void midspan_keep_memory() {
    static Kept* kept = new Kept;
    c10::SetCPUAllocator(kept, 1);
}
