#include <string>

#include "abi/guard.h"

namespace scaledit::abi {
namespace {

thread_local std::string last_error;

}  // namespace

scaledit_status fail(scaledit_status status, std::string_view message) noexcept {
    try {
        last_error = message;
    } catch (const std::bad_alloc&) {
        last_error.clear();  // the status still tells
    }
    return status;
}

}  // namespace scaledit::abi

const char* scaledit_version() { return SCALEDIT_VERSION; }

const char* scaledit_last_error() { return scaledit::abi::last_error.c_str(); }
