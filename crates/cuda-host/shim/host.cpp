// The kernels as functions of a library: `host_launch` by name, `host_parameters` says what a kernel takes.
#include <algorithm>
#include <cstring>
#include <utility>

#include "host.h"

#include "kernels.cu"

namespace {

template <class T> char letter() {
    if (std::is_pointer_v<T>) return 'p';
    return std::is_same_v<T, float> ? 'f' : 'u';
}

template <auto kernel> struct Call;
template <class... P, void (*kernel)(P...)> struct Call<kernel> {
    static void run(void** args) { run(args, std::index_sequence_for<P...>{}); }
    template <std::size_t... I> static void run(void** args, std::index_sequence<I...>) { kernel(*(P*)args[I]...); }
    static const char* parameters() {
        static const char letters[] = {letter<P>()..., 0};
        return letters;
    }
};

struct Entry {
    const char* name;
    void (*run)(void**);
    const char* parameters;
};

#define ENTRY(name) {#name, Call<name>::run, Call<name>::parameters()}
const Entry entries[] = {
    ENTRY(activate), ENTRY(activate_backward), ENTRY(add_parts), ENTRY(assemble), ENTRY(attention), ENTRY(attention_backward_keys),
    ENTRY(attention_backward_queries), ENTRY(attention_delta), ENTRY(attention_pool), ENTRY(attention_pool_backward),
    ENTRY(attention_relevance), ENTRY(dropout), ENTRY(gather), ENTRY(gradient), ENTRY(grouped), ENTRY(layernorm), ENTRY(layernorm_backward), ENTRY(linear_backward_bf16), ENTRY(linear_backward_f32),
    ENTRY(linear_bf16), ENTRY(linear_f32), ENTRY(mean_tokens), ENTRY(mean_tokens_backward), ENTRY(rotate), ENTRY(scaled), ENTRY(unfold),
};

const Entry* find(const char* name) {
    for (const Entry& entry : entries) {
        if (!std::strcmp(entry.name, name)) return &entry;
    }
    return nullptr;
}

}  // namespace

// A letter a parameter: `p` a pointer, `u` a number, `f` a float; null for no kernel of this name.
extern "C" const char* host_parameters(const char* name) {
    const Entry* entry = find(name);
    return entry ? entry->parameters : nullptr;
}

// Not from two threads at once: what blocks share is static.
extern "C" void host_launch(const char* name, const unsigned grid[3], unsigned threads, void** args, int falling) {
    host::falling = falling;
    host::run(find(name)->run, args, {grid[0], grid[1], grid[2]}, threads);
}
