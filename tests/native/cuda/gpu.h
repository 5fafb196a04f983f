// What tests that need a GPU have in common.
#pragma once

#include <cuda_runtime.h>
#include <gtest/gtest.h>

#include <cstddef>
#include <vector>

namespace scaledit {

inline bool there_is_a_gpu() {
    int devices = 0;
    return cudaGetDeviceCount(&devices) == cudaSuccess && devices > 0;
}

// Without a GPU there is nothing to run on; with one nothing is passed over, whatever the library says of it.
class Gpu : public testing::Test {
protected:
    void SetUp() override {
        if (!there_is_a_gpu()) {
            GTEST_SKIP() << "no GPU";
        }
    }
};

// A copy of host memory on the GPU.
class DeviceMemory {
public:
    explicit DeviceMemory(const std::vector<std::byte>& host) : bytes_(host.size()) {
        EXPECT_EQ(cudaMalloc(&memory_, bytes_), cudaSuccess);
        write(host);
    }
    ~DeviceMemory() { cudaFree(memory_); }
    DeviceMemory(const DeviceMemory&) = delete;
    DeviceMemory& operator=(const DeviceMemory&) = delete;

    [[nodiscard]] std::byte* data() const { return static_cast<std::byte*>(memory_); }
    void write(const std::vector<std::byte>& host) const {
        EXPECT_EQ(cudaMemcpy(memory_, host.data(), bytes_, cudaMemcpyHostToDevice), cudaSuccess);
    }
    [[nodiscard]] std::vector<std::byte> read() const {
        std::vector<std::byte> host(bytes_);
        EXPECT_EQ(cudaMemcpy(host.data(), memory_, bytes_, cudaMemcpyDeviceToHost), cudaSuccess);
        return host;
    }

private:
    void* memory_ = nullptr;
    std::size_t bytes_;
};

}  // namespace scaledit
