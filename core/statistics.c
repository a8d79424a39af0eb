/* Welch's test: B. L. Welch, Biometrika 34 (1947), 28-35, degrees of freedom by Satterthwaite
 * (1946). The tail of Student's t is an incomplete beta function (DLMF 8.17), which is summed as
 * the continued fraction DLMF 8.17.22 by the modified Lentz method (Thompson and Barnett, J.
 * Comput. Phys. 64 (1986), 490-509). */
#include "statistics.h"

#include <math.h>

/* Offsets from the first value, so that equal values have no rounding at all. */
double statistics_mean(const double *values, size_t n) {
    if (n == 0) return NAN;
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += values[i] - values[0];
    return values[0] + sum / (double)n;
}

double statistics_deviation(const double *values, size_t n) {
    if (n < 2) return NAN;
    const double mean = statistics_mean(values, n);
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (values[i] - mean) * (values[i] - mean);
    return sqrt(sum / (double)(n - 1));
}

/* One step of Lentz's method with the coefficient `d`; `c` and `inverse` carry the state. */
static double lentz(double d, double *c, double *inverse) {
    const double tiny = 1e-300;
    *inverse = 1 + d * *inverse;
    *c = 1 + d / *c;
    if (fabs(*inverse) < tiny) *inverse = tiny;
    if (fabs(*c) < tiny) *c = tiny;
    *inverse = 1 / *inverse;
    return *c * *inverse;
}

/* 1 / (1 + d1/(1 + d2/(1 + ...))), which converges fast for x < (a + 1) / (a + b + 2). */
static double beta_fraction(double a, double b, double x) {
    enum { MOST = 100000 }; /* some sqrt(max(a, b)) terms are needed */
    double c = 1, inverse = 0, value = 1;
    for (int m = 0; m < MOST; m++) {
        const double k = 2.0 * m;
        const double odd = -(a + m) * (a + b + m) * x / ((a + k) * (a + k + 1));
        const double even = (m + 1) * (b - m - 1) * x / ((a + k + 1) * (a + k + 2));
        value *= lentz(odd, &c, &inverse);
        const double factor = lentz(even, &c, &inverse);
        value *= factor;
        if (fabs(factor - 1) < 1e-16) break;
    }
    return 1 / value;
}

double incomplete_beta(double a, double b, double x) {
    if (x <= 0) return 0;
    if (x >= 1) return 1;
    const double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
    if (x < (a + 1) / (a + b + 2)) return front * beta_fraction(a, b, x) / a;
    return 1 - front * beta_fraction(b, a, 1 - x) / b;
}

/* P(|T| >= |t|) = I_{df / (df + t^2)}(df / 2, 1 / 2). Near t = 0 that argument is close to 1, and
 * its complement t^2 / (df + t^2) keeps the digits. */
double student_upper(double t, double df) {
    if (isnan(t) || isnan(df)) return NAN;
    if (isinf(t)) return t > 0 ? 0 : 1;
    const double square = t * t;
    const double inside = incomplete_beta(0.5, df / 2, square / (df + square));
    if (t < 0) return 0.5 + 0.5 * inside;
    if (inside < 0.5) return 0.5 - 0.5 * inside;
    return 0.5 * incomplete_beta(df / 2, 0.5, df / (df + square));
}

bool welch_test(const double *a, size_t n_a, const double *b, size_t n_b, double margin,
                struct welch *result) {
    const double difference = statistics_mean(a, n_a) - statistics_mean(b, n_b);
    result->difference = difference;
    if (n_a < 2 || n_b < 2) return false;
    const double gain = -difference - margin;
    const double s_a = statistics_deviation(a, n_a), s_b = statistics_deviation(b, n_b);
    const double v_a = s_a * s_a / (double)n_a, v_b = s_b * s_b / (double)n_b, v = v_a + v_b;
    if (v <= 0) {
        *result =
            (struct welch){difference, gain > 0 ? INFINITY : -INFINITY, NAN, gain > 0 ? 0 : 1};
        return true;
    }
    /* Divided by v before squaring, so that tiny variances do not underflow. */
    const double w_a = v_a / v, w_b = v_b / v;
    const double df = 1 / (w_a * w_a / (double)(n_a - 1) + w_b * w_b / (double)(n_b - 1));
    const double t = gain / sqrt(v);
    *result = (struct welch){difference, t, df, student_upper(t, df)};
    return true;
}
