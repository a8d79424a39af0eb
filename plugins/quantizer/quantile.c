/* Quantile by selection: expected time linear in the row, no random numbers.
 * Source: Hoare, "Algorithm 65: Find", 1961, with the median of three as pivot. */
#include "quantile.h"

static void swap(float *a, float *b) {
    const float t = *a;
    *a = *b;
    *b = t;
}

/* Order three elements, so that the middle one is their median. */
static float median_of_three(float *low, float *middle, float *high) {
    if (*middle < *low) swap(middle, low);
    if (*high < *low) swap(high, low);
    if (*high < *middle) swap(high, middle);
    return *middle;
}

/* Among values[low .. high]: afterwards values[k] is the element that sorting would put there,
 * nothing before it is larger, nothing after it is smaller. Equal elements are exchanged, which
 * keeps constant rows balanced. */
static void select_rank(float *values, int64_t low, int64_t high, int64_t k) {
    while (low < high) {
        const float pivot =
            median_of_three(&values[low], &values[low + (high - low) / 2], &values[high]);
        int64_t i = low, j = high;
        while (i <= j) {
            while (values[i] < pivot) i++;
            while (pivot < values[j]) j--;
            if (i <= j) swap(&values[i++], &values[j--]);
        }
        if (k <= j)
            high = j;
        else if (k >= i)
            low = i;
        else
            return;
    }
}

/* Between the values of ranks `below` and the next; nothing behind `below` is smaller than it. */
static float interpolate(const float *values, int64_t n, int64_t below, float rank) {
    const float a = values[below];
    if (below == n - 1) return a;
    float b = values[below + 1];
    for (int64_t i = below + 2; i < n; i++)
        if (values[i] < b) b = values[i];
    /* From the nearer end, so that a weight of 1 gives b exactly. */
    const float weight = rank - (float)below;
    return weight < 0.5f ? a + weight * (b - a) : b - (b - a) * (1.0f - weight);
}

void quantiles(float *values, int64_t n, const float *p, int n_p, float *out) {
    int64_t low = 0; /* the part before is done with: what follows it is not smaller */
    for (int i = 0; i < n_p; i++) {
        const float rank = p[i] * (float)(n - 1);
        int64_t below = (int64_t)rank;
        if (below > n - 1) below = n - 1;
        select_rank(values, low, n - 1, below);
        out[i] = interpolate(values, n, below, rank);
        low = below;
    }
}

float quantile(float *values, int64_t n, float p) {
    float result;
    quantiles(values, n, &p, 1, &result);
    return result;
}
