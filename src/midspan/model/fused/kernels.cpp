// What lies between the matrix products of a training step, each in one pass over memory.
//
// Values are bfloat16 in memory, or float32 where FLOAT32 is defined, and float32 in registers. Rows are shared out in
// fixed blocks, so sums over rows come out the same whatever the number of threads. The plain torch version of every
// function is in the tests.

#include <cmath>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <limits>

using i64 = int64_t;

#ifdef FLOAT32
using num = float;
using whole = int32_t;

static inline float up(num x) { return x; }
static inline num down(float value) { return value; }
#else
using num = uint16_t;
using whole = int16_t;

static inline float up(num x) {
    uint32_t bits = static_cast<uint32_t>(x) << 16;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
}

static inline num down(float value) {  // to the nearest, ties to even
    uint32_t bits;
    std::memcpy(&bits, &value, 4);
    return static_cast<num>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}
#endif

// Bits ordered as whole numbers: those of negative numbers run backwards. It is its own reverse.
static inline whole ordered(whole bits) {
    constexpr int SIGN = 8 * sizeof(whole) - 1;
    return bits ^ ((bits >> SIGN) & static_cast<whole>(~(static_cast<whole>(1) << SIGN)));
}

// e^x to 2 units in the last place, by a polynomial around multiples of ln 2; vectorised by the compiler.
static inline float exponential(float x) {
    x = x < -87.0f ? -87.0f : (x > 88.0f ? 88.0f : x);
    float n = std::nearbyintf(x * 1.44269504f);
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    int32_t bits = (static_cast<int32_t>(n) + 127) << 23;
    float scale;
    std::memcpy(&scale, &bits, 4);
    return p * scale;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exponential(-x)); }

extern "C" {

// sum = x + delta (or x where there is no delta); out = sum / rms(sum) * weight.
void midspan_norm(const num* __restrict x, const num* __restrict delta, const num* __restrict weight, num* __restrict sum, num* __restrict out, float* __restrict inverse_rms,
                  i64 rows, i64 dim, float eps) {
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        const num* x_row = x + row * dim;
        const num* sum_row = x_row;
        if (delta) {
            const num* delta_row = delta + row * dim;
            num* target = sum + row * dim;
            for (i64 i = 0; i < dim; i++) target[i] = down(up(x_row[i]) + up(delta_row[i]));
            sum_row = target;
        }
        float squares = 0;
#pragma omp simd reduction(+ : squares)
        for (i64 i = 0; i < dim; i++) squares += up(sum_row[i]) * up(sum_row[i]);
        const float inverse = 1.0f / std::sqrt(squares / static_cast<float>(dim) + eps);
        inverse_rms[row] = inverse;
        num* out_row = out + row * dim;
        for (i64 i = 0; i < dim; i++) out_row[i] = down(up(sum_row[i]) * inverse * up(weight[i]));
    }
}

// Gradient of the sum: through the norm, plus what comes along the residual (if anything does). The weight's gradient
// is left as one partial sum a block of rows.
void midspan_norm_backward(const num* __restrict grad, const num* __restrict residual, const num* __restrict sum, const num* __restrict weight,
                           const float* __restrict inverse_rms, num* __restrict grad_sum, float* __restrict partial, i64 rows, i64 dim, i64 blocks) {
#pragma omp parallel for schedule(static)
    for (i64 block = 0; block < blocks; block++) {
        float* own = partial + block * dim;
        std::memset(own, 0, dim * sizeof(float));
        for (i64 row = rows * block / blocks; row < rows * (block + 1) / blocks; row++) {
            const num *g = grad + row * dim, *s = sum + row * dim;
            const float inverse = inverse_rms[row];
            float dot = 0;
#pragma omp simd reduction(+ : dot)
            for (i64 i = 0; i < dim; i++) {
                float along = up(g[i]) * up(s[i]) * inverse;
                own[i] += along;
                dot += along * up(weight[i]);
            }
            const float mean = dot / static_cast<float>(dim);
            num* target = grad_sum + row * dim;
            if (residual) {
                const num* r = residual + row * dim;
                for (i64 i = 0; i < dim; i++)
                    target[i] = down(up(r[i]) + inverse * (up(g[i]) * up(weight[i]) - up(s[i]) * inverse * mean));
            } else {
                for (i64 i = 0; i < dim; i++)
                    target[i] = down(inverse * (up(g[i]) * up(weight[i]) - up(s[i]) * inverse * mean));
            }
        }
    }
}

// out = silu(gate) * up, of rows that hold the gate's half and then the other.
void midspan_swiglu(const num* __restrict gate_up, num* __restrict out, i64 rows, i64 inner) {
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        const num *gate = gate_up + row * 2 * inner, *other = gate + inner;
        num* target = out + row * inner;
        for (i64 i = 0; i < inner; i++) {
            float g = up(gate[i]);
            target[i] = down(g * sigmoid(g) * up(other[i]));
        }
    }
}

// The same product again (for the gradient of the matrix behind it), and the gradient of both halves.
void midspan_swiglu_backward(const num* __restrict grad, const num* __restrict gate_up, num* __restrict out, num* __restrict grad_gate_up, i64 rows,
                             i64 inner) {
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        const num *gate = gate_up + row * 2 * inner, *other = gate + inner, *g_row = grad + row * inner;
        num *target = out + row * inner, *grad_gate = grad_gate_up + row * 2 * inner, *grad_up = grad_gate + inner;
#pragma GCC ivdep
        for (i64 i = 0; i < inner; i++) {
            float g = up(gate[i]), u = up(other[i]), d = up(g_row[i]), share = sigmoid(g), silu = g * share;
            target[i] = down(silu * u);
            grad_up[i] = down(d * silu);
            grad_gate[i] = down(d * u * share * (1.0f + g - silu));
        }
    }
}

// Turn the first `heads` heads of each row in place by the row's angles: cos and sin are (rows, head_dim / 2).
void midspan_rotate(num* __restrict x, const float* __restrict cos, const float* __restrict sin, i64 rows, i64 heads, i64 head_dim, i64 width) {
    const i64 half = head_dim / 2;
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        const float *c = cos + row * half, *s = sin + row * half;
        for (i64 head = 0; head < heads; head++) {
            num *first = x + row * width + head * head_dim, *second = first + half;
#pragma GCC ivdep
            for (i64 i = 0; i < half; i++) {
                float a = up(first[i]), b = up(second[i]);
                first[i] = down(a * c[i] - b * s[i]);
                second[i] = down(b * c[i] + a * s[i]);
            }
        }
    }
}

// Gradients of queries, keys and values, each (rows, heads, head_dim), as one row of what was projected: the first two
// turned back, those of keys and values summed over the `groups` of query heads that share them.
void midspan_gather(const num* __restrict queries, const num* __restrict keys, const num* __restrict values, num* __restrict out, const float* __restrict cos,
                    const float* __restrict sin, i64 rows, i64 heads, i64 groups, i64 head_dim) {
    const i64 half = head_dim / 2, shared = heads / groups, width = (heads + 2 * shared) * head_dim;
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        num* target = out + row * width;
        const float *c = cos + row * half, *s = sin + row * half;
        const num* source = queries + row * heads * head_dim;
        for (i64 head = 0; head < heads; head++, target += head_dim, source += head_dim)
            for (i64 i = 0; i < half; i++) {
                float a = up(source[i]), b = up(source[half + i]);
                target[i] = down(a * c[i] + b * s[i]);
                target[half + i] = down(b * c[i] - a * s[i]);
            }
        float sums[1024];  // of one head: the Python side lets no wider one in
        for (const num* __restrict part : {keys, values}) {
            source = part + row * heads * head_dim;
            for (i64 head = 0; head < shared; head++, target += head_dim) {
                std::memset(sums, 0, head_dim * sizeof(float));
                for (i64 g = 0; g < groups; g++, source += head_dim)
                    for (i64 i = 0; i < head_dim; i++) sums[i] += up(source[i]);
                if (part == values)
                    for (i64 i = 0; i < head_dim; i++) target[i] = down(sums[i]);
                else
                    for (i64 i = 0; i < half; i++) {
                        target[i] = down(sums[i] * c[i] + sums[half + i] * s[i]);
                        target[half + i] = down(sums[half + i] * c[i] - sums[i] * s[i]);
                    }
            }
        }
    }
}

// The loss of each row of logits, which become the error softmax - one-hot where that is wanted.
void midspan_softmax_loss(num* __restrict logits, const i64* __restrict targets, float* __restrict losses, i64 rows, i64 vocab, i64 want_error) {
#pragma omp parallel for schedule(static)
    for (i64 row = 0; row < rows; row++) {
        num* x = logits + row * vocab;
        whole highest = std::numeric_limits<whole>::min();
#pragma omp simd reduction(max : highest)
        for (i64 i = 0; i < vocab; i++) {
            whole bits;
            std::memcpy(&bits, x + i, sizeof bits);
            const whole key = ordered(bits);
            highest = key > highest ? key : highest;
        }
        highest = ordered(highest);
        num at_top;
        std::memcpy(&at_top, &highest, sizeof at_top);
        const float top = up(at_top);
        float total = 0;
#pragma omp simd reduction(+ : total)
        for (i64 i = 0; i < vocab; i++) total += exponential(up(x[i]) - top);
        const float at_target = up(x[targets[row]]) - top;
        losses[row] = std::log(total) - at_target;
        if (!want_error) continue;
        const float inverse = 1.0f / total;
        for (i64 i = 0; i < vocab; i++) x[i] = down(exponential(up(x[i]) - top) * inverse);
        x[targets[row]] = down(exponential(at_target) * inverse - 1.0f);
    }
}
}

#ifndef FLOAT32
// Eight rows of eight turned. Vectors of eight halves: even and odd neighbours are dealt out three times.
using eight = uint16_t __attribute__((vector_size(16)));
static inline void turn_eight(const num* x, i64 x_stride, num* out, i64 out_stride) {
    eight rows[8], next[8];
    for (int i = 0; i < 8; i++) std::memcpy(&rows[i], x + i * x_stride, 16);
    for (int round = 0; round < 3; round++) {
        for (int i = 0; i < 4; i++) {
            next[2 * i] = __builtin_shuffle(rows[i], rows[i + 4], eight{0, 8, 1, 9, 2, 10, 3, 11});
            next[2 * i + 1] = __builtin_shuffle(rows[i], rows[i + 4], eight{4, 12, 5, 13, 6, 14, 7, 15});
        }
        for (int i = 0; i < 8; i++) rows[i] = next[i];
    }
    for (int i = 0; i < 8; i++) std::memcpy(out + i * out_stride, &rows[i], 16);
}

// out (columns, rows) = x (rows, columns) turned, in squares that fit the nearest cache.
extern "C" void midspan_transpose(const num* __restrict x, num* __restrict out, i64 rows, i64 columns) {
    constexpr i64 SIDE = 64;
#pragma omp parallel for schedule(static) collapse(2)
    for (i64 left = 0; left < columns; left += SIDE)
        for (i64 top = 0; top < rows; top += SIDE) {
            const i64 bottom = top + SIDE < rows ? top + SIDE : rows;
            const i64 right = left + SIDE < columns ? left + SIDE : columns;
            if (bottom - top == SIDE && right - left == SIDE) {
                for (i64 row = top; row < bottom; row += 8)
                    for (i64 column = left; column < right; column += 8)
                        turn_eight(x + row * columns + column, columns, out + column * rows + row, rows);
                continue;
            }
            for (i64 column = left; column < right; column++)
                for (i64 row = top; row < bottom; row++) out[column * rows + row] = x[row * columns + column];
        }
}
#endif
