// Paged attention on the CPU: writes a step's keys and values into the pool, then attends through block tables.
//
// One work item is (sequence, key/value head, tile of queries). Its rows are all query heads of the group times the
// queries of the tile, so keys and values are read once for all of them. Softmax runs online over tiles of kTile
// positions. Many rows multiply with a transposed key tile; a few rows (decoding) take dot products instead, because
// transposing would cost more than it saves. All arithmetic is f32; bf16 is converted when read and written.
//
// Layout of one layer in a block: keys [kv_head][slot][head_dim], then values alike. Called from one thread at a time.

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

#include <omp.h>

#if defined(__AVX512F__)
constexpr int kWidth = 16;    // floats per vector
constexpr int kColumns = 4;   // vectors per micro tile
#else
constexpr int kWidth = 8;
constexpr int kColumns = 2;
#endif
constexpr int kRows = 6;        // rows per micro tile: kRows * kColumns accumulators stay in registers
constexpr int kTile = 64;       // positions per tile
constexpr int kDotRows = 8;     // up to this many rows take dot products
constexpr int kTargetRows = 128;
constexpr float kMasked = -1e30f;

typedef float Vec __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef int32_t IntVec __attribute__((vector_size(kWidth * 4), aligned(4), may_alias));
typedef uint16_t HalfVec __attribute__((vector_size(kWidth * 2), aligned(2), may_alias));

struct Bf16 {
    uint16_t bits;
};

static inline Vec load(const float* from) { return *reinterpret_cast<const Vec*>(from); }
static inline Vec load(const Bf16* from) {
    HalfVec half = *reinterpret_cast<const HalfVec*>(from);
    IntVec wide = __builtin_convertvector(half, IntVec) << 16;
    return (Vec)wide;  // the same bits
}
static inline void store(float* to, Vec value) { *reinterpret_cast<Vec*>(to) = value; }
static inline float to_float(float value) { return value; }
static inline float to_float(Bf16 value) {
    uint32_t bits = uint32_t(value.bits) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}
static inline void from_float(float* to, float value) { *to = value; }
static inline void from_float(Bf16* to, float value) {
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    // Round to nearest, ties to even; a NaN must not be rounded into an infinity.
    to->bits = (value != value) ? 0x7fc0 : uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
static inline Vec broadcast(float value) { return Vec{} + value; }

// Halves are folded over each other: log2(kWidth) steps instead of kWidth.
template <int Half>
static inline Vec fold(Vec value) {
    IntVec from{};
    for (int i = 0; i < kWidth; i++) from[i] = (i + Half) % kWidth;
    return value + __builtin_shuffle(value, from);
}
static inline float sum(Vec value) {
    if constexpr (kWidth == 16) value = fold<8>(value);
    return fold<1>(fold<2>(fold<4>(value)))[0];
}

// 2**x for x <= 0, relative error about 2e-7; below -126 it is 0.
static inline Vec exp2_of(Vec x) {
    IntVec is_tiny = x < -126.0f;
    Vec clamped = is_tiny ? broadcast(-126.0f) : x;
    IntVec whole = __builtin_convertvector(clamped - 0.5f, IntVec);  // truncates towards 0: rounds negatives to nearest
    Vec rest = clamped - __builtin_convertvector(whole, Vec);
    Vec result = broadcast(1.5403530393381609954e-4f);
    result = result * rest + 1.3333558146428443423e-3f;
    result = result * rest + 9.6181291076284771619e-3f;
    result = result * rest + 5.5504108664821579953e-2f;
    result = result * rest + 2.4022650695910071233e-1f;
    result = result * rest + 6.9314718055994530942e-1f;
    result = result * rest + 1.0f;
    Vec scaled = (Vec)((IntVec)result + (whole << 23));
    return is_tiny ? Vec{} : scaled;
}

// c[R][V vectors] (+)= a[R][depth] * b[depth][V vectors]
template <int R, int V, bool Add>
static inline void micro(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int depth) {
    Vec acc[R][V];
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) acc[r][v] = Add ? load(c + r * ldc + v * kWidth) : Vec{};
    for (int k = 0; k < depth; k++) {
        Vec row[V];
        for (int v = 0; v < V; v++) row[v] = load(b + k * ldb + v * kWidth);
        for (int r = 0; r < R; r++) {
            Vec factor = broadcast(a[r * lda + k]);
            for (int v = 0; v < V; v++) acc[r][v] += factor * row[v];
        }
    }
    for (int r = 0; r < R; r++)
        for (int v = 0; v < V; v++) store(c + r * ldc + v * kWidth, acc[r][v]);
}

template <int R, bool Add>
static inline void strip(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int columns,
                         int depth) {
    int n = 0;
    for (; n + kColumns * kWidth <= columns; n += kColumns * kWidth)
        micro<R, kColumns, Add>(a, lda, b + n, ldb, c + n, ldc, depth);
    for (; n < columns; n += kWidth) micro<R, 1, Add>(a, lda, b + n, ldb, c + n, ldc, depth);
}

// c[rows][columns] (+)= a[rows][depth] * b[depth][columns]; columns is a multiple of kWidth.
template <bool Add>
static void multiply(const float* a, int64_t lda, const float* b, int64_t ldb, float* c, int64_t ldc, int rows,
                     int columns, int depth) {
    int r = 0;
    for (; r + kRows <= rows; r += kRows) strip<kRows, Add>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth);
    for (; r + 3 <= rows; r += 3) strip<3, Add>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth);
    for (; r < rows; r++) strip<1, Add>(a + r * lda, lda, b, ldb, c + r * ldc, ldc, columns, depth);
}

// Mirrors native_attention.py: same fields, same order.
struct AttendArgs {
    const void* query;  // [T][heads][head_dim], strides in elements
    const void* key;    // [T][kv_heads][head_dim]
    const void* value;
    void* out;          // [T][heads][head_dim], dense
    void* pool;
    const int32_t* query_starts;  // [S + 1]
    const int32_t* contexts;      // [S]
    const int32_t* tables;        // [S][table_width]
    int64_t query_stride, key_stride, value_stride;
    int64_t block_stride, layer_offset;
    int64_t table_width;
    int64_t num_sequences, num_heads, num_kv_heads, head_dim, block_size;
    int64_t window;  // positions a query sees, 0 = all
    int64_t is_bf16, num_threads;
    double scale;
};

struct Item {
    int32_t sequence, kv_head, first, count;  // queries first .. first + count - 1 of the sequence
};

struct Scratch {
    std::vector<float> memory;
    float *query, *out, *scores, *keys, *values, *top, *total;

    Scratch(int rows, int width) : memory(size_t(rows) * (2 * width + kTile + 2) + 2 * size_t(kTile) * width + 64) {
        // Rows start on cache lines.
        float* next = reinterpret_cast<float*>((reinterpret_cast<uintptr_t>(memory.data()) + 63) & ~uintptr_t(63));
        auto take = [&next](size_t count) {
            float* mine = next;
            next += count;
            return mine;
        };
        query = take(size_t(rows) * width), out = take(size_t(rows) * width), scores = take(size_t(rows) * kTile);
        keys = take(size_t(kTile) * width), values = take(size_t(kTile) * width);
        top = take(rows), total = take(rows);
    }
};

template <typename T>
static void write_kv(const AttendArgs& args, int32_t sequence) {
    const int64_t dim = args.head_dim, head_stride = args.block_size * dim, kv_stride = args.num_kv_heads * head_stride;
    const int32_t start = args.query_starts[sequence], count = args.query_starts[sequence + 1] - start;
    const int32_t* table = args.tables + sequence * args.table_width;
    for (int32_t i = 0; i < count; i++) {
        const int64_t position = args.contexts[sequence] + i, token = start + i;
        T* slot = static_cast<T*>(args.pool) + table[position / args.block_size] * args.block_stride +
                  args.layer_offset + (position % args.block_size) * dim;
        const T* key = static_cast<const T*>(args.key) + token * args.key_stride;
        const T* value = static_cast<const T*>(args.value) + token * args.value_stride;
        for (int64_t head = 0; head < args.num_kv_heads; head++) {
            std::memcpy(slot + head * head_stride, key + head * dim, dim * sizeof(T));
            std::memcpy(slot + kv_stride + head * head_stride, value + head * dim, dim * sizeof(T));
        }
    }
}

// Copy `count` positions from `first` of one head (of `end` that will be read) into f32 rows [count][width], or transposed into [width][kTile].
template <typename T, bool Transposed>
static void read_tile(const AttendArgs& args, const T* head, const int32_t* table, int64_t first, int count,
                      int64_t end, int width, float* to) {
    const int64_t dim = args.head_dim;
    auto row_of = [&](int64_t position) {
        return head + table[position / args.block_size] * args.block_stride + (position % args.block_size) * dim;
    };
    for (int i = 0; i < count; i++) {
        const T* from = row_of(first + i);
        // Blocks lie apart, which the hardware does not foresee: ask for the next tile's row now.
        if (first + i + kTile < end) {
            const char* next = reinterpret_cast<const char*>(row_of(first + i + kTile));
            for (int64_t line = 0; line < dim * int64_t(sizeof(T)); line += 64) __builtin_prefetch(next + line);
        }
        int d = 0;
        if (Transposed) {
            for (; d < dim; d++) to[d * kTile + i] = to_float(from[d]);
        } else {
            for (; d + kWidth <= dim; d += kWidth) store(to + i * width + d, load(from + d));
            for (; d < dim; d++) to[i * width + d] = to_float(from[d]);
        }
    }
    if (Transposed)
        for (int d = 0; d < dim; d++)
            for (int i = count; i < kTile; i++) to[d * kTile + i] = 0;
}

static void dot_scores(const float* query, const float* keys, float* scores, int rows, int count, int width) {
    for (int j = 0; j < count; j++)
        for (int r = 0; r < rows; r++) {
            Vec acc{};
            for (int d = 0; d < width; d += kWidth) acc += load(query + r * width + d) * load(keys + j * width + d);
            scores[r * kTile + j] = sum(acc);
        }
}

// Turn a row of scores into weights under the running maximum; rescale what was summed under an older one.
static void soften(float* scores, float* out, float* top, float* total, int width) {
    Vec highest = load(scores);
    for (int j = kWidth; j < kTile; j += kWidth) {
        Vec next = load(scores + j);
        highest = highest > next ? highest : next;
    }
    float maximum = *top;
    for (int i = 0; i < kWidth; i++) maximum = std::max(maximum, highest[i]);
    Vec added{};
    for (int j = 0; j < kTile; j += kWidth) {
        Vec score = load(scores + j);
        Vec weight = score <= kMasked ? Vec{} : exp2_of(score - maximum);
        store(scores + j, weight);
        added += weight;
    }
    if (maximum != *top) {
        Vec factor = exp2_of(broadcast(*top - maximum));
        for (int d = 0; d < width; d += kWidth) store(out + d, load(out + d) * factor);
        *total *= factor[0];
        *top = maximum;
    }
    *total += sum(added);
}

template <typename T>
static void attend(const AttendArgs& args, const Item& item, Scratch& scratch, int width) {
    const int64_t dim = args.head_dim, group = args.num_heads / args.num_kv_heads;
    const int rows = int(item.count * group);
    const int32_t start = args.query_starts[item.sequence] + item.first;
    const int64_t first_position = args.contexts[item.sequence] + item.first;
    const int32_t* table = args.tables + item.sequence * args.table_width;
    const T* keys = static_cast<const T*>(args.pool) + args.layer_offset + item.kv_head * args.block_size * dim;
    const T* values = keys + args.num_kv_heads * args.block_size * dim;
    const float scale = float(args.scale * 1.4426950408889634);  // weights are powers of two

    for (int r = 0; r < rows; r++) {
        const T* from = static_cast<const T*>(args.query) + (start + r / group) * args.query_stride +
                        (item.kv_head * group + r % group) * dim;
        float* to = scratch.query + r * width;
        for (int d = 0; d < width; d++) to[d] = d < dim ? to_float(from[d]) * scale : 0;
        std::memset(scratch.out + r * width, 0, width * sizeof(float));
        scratch.top[r] = kMasked, scratch.total[r] = 0;
    }
    const int64_t end = first_position + item.count;
    const int64_t begin = args.window ? std::max<int64_t>(0, first_position - args.window + 1) : 0;
    for (int64_t base = begin; base < end; base += kTile) {
        const int count = int(std::min<int64_t>(kTile, end - base));
        if (rows <= kDotRows) {
            read_tile<T, false>(args, keys, table, base, count, end, width, scratch.keys);
            dot_scores(scratch.query, scratch.keys, scratch.scores, rows, count, width);
        } else {
            read_tile<T, true>(args, keys, table, base, count, end, width, scratch.keys);
            multiply<false>(scratch.query, width, scratch.keys, kTile, scratch.scores, kTile, rows, kTile, int(dim));
        }
        read_tile<T, false>(args, values, table, base, count, end, width, scratch.values);
        for (int r = 0; r < rows; r++) {
            const int64_t position = first_position + r / group;
            float* scores = scratch.scores + r * kTile;
            // Seen: [low, high) within the tile.
            const int high = int(std::clamp<int64_t>(position + 1 - base, 0, count));
            const int low = args.window ? int(std::clamp<int64_t>(position + 1 - args.window - base, 0, high)) : 0;
            std::fill(scores + high, scores + kTile, kMasked);
            std::fill(scores, scores + low, kMasked);
            soften(scores, scratch.out + r * width, scratch.top + r, scratch.total + r, width);
        }
        multiply<true>(scratch.scores, kTile, scratch.values, width, scratch.out, width, rows, width, count);
    }
    for (int r = 0; r < rows; r++) {
        T* to = static_cast<T*>(args.out) + ((start + r / group) * args.num_heads + item.kv_head * group + r % group) * dim;
        const float factor = 1.0f / scratch.total[r];
        for (int d = 0; d < dim; d++) from_float(to + d, scratch.out[r * width + d] * factor);
    }
}

template <typename T>
static void run(const AttendArgs& args) {
    const int group = int(args.num_heads / args.num_kv_heads);
    const int tile = std::max(1, kTargetRows / group);
    const int width = int((args.head_dim + kWidth - 1) / kWidth * kWidth);
    std::vector<Item> items;
    for (int32_t s = 0; s < args.num_sequences; s++) {
        const int32_t count = args.query_starts[s + 1] - args.query_starts[s];
        // The last tile sees most positions: starting with it balances the threads.
        for (int32_t first = (count - 1) / tile * tile; first >= 0; first -= tile)
            for (int32_t head = 0; head < args.num_kv_heads; head++)
                items.push_back({s, head, first, std::min(tile, count - first)});
    }
    int most = 1;
    for (const Item& item : items) most = std::max(most, item.count);
#pragma omp parallel num_threads(int(args.num_threads)) if (args.num_threads > 1)
    {
        Scratch scratch(most * group, width);
        // Padding columns of the tiles are multiplied: they must be numbers.
        std::fill(scratch.keys, scratch.keys + kTile * width, 0.0f);
        std::fill(scratch.values, scratch.values + kTile * width, 0.0f);
#pragma omp for schedule(dynamic, 4)
        for (int32_t s = 0; s < args.num_sequences; s++) write_kv<T>(args, s);
        // The implied barrier: all of this layer's keys and values stand before anybody reads.
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < items.size(); i++) attend<T>(args, items[i], scratch, width);
    }
}

// Returns 0, or 1 when there was no memory for the scratch buffers.
extern "C" int brigade_attend(const AttendArgs* args) {
    try {
        if (args->is_bf16)
            run<Bf16>(*args);
        else
            run<float>(*args);
    } catch (const std::bad_alloc&) {
        return 1;
    }
    return 0;
}
