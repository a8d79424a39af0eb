#include "schedule.h"

static double pace(int64_t step, double elapsed) { return step > 0 ? elapsed / (double)step : 0.0; }

static double smaller(double a, double b) { return a < b ? a : b; }

double schedule_scale(const struct schedule *schedule, int64_t step, double elapsed) {
    double scale = 1.0;
    if (step < schedule->warmup_steps) scale = (double)(step + 1) / (double)schedule->warmup_steps;
    if (schedule->warmdown_steps <= 0) return scale;
    const double warmdown = (double)schedule->warmdown_steps;
    if (schedule->steps > 0) scale = smaller(scale, (double)(schedule->steps - step) / warmdown);
    const double seconds = warmdown * pace(step, elapsed);
    if (schedule->seconds > 0 && seconds > 0)
        scale = smaller(scale, (schedule->seconds - elapsed) / seconds);
    return scale > 0 ? scale : 0;
}

double schedule_lowest(const struct schedule *schedule) {
    const bool only_warmup = schedule->steps > 0 && schedule->warmup_steps >= schedule->steps;
    if (schedule->warmdown_steps <= 0 || only_warmup) return 1;
    return schedule->seconds > 0 ? 0 : schedule_scale(schedule, schedule->steps - 1, 0);
}

bool schedule_done(const struct schedule *schedule, int64_t step, double elapsed) {
    if (schedule->steps > 0 && step >= schedule->steps) return true;
    return schedule->seconds > 0 && elapsed >= schedule->seconds;
}

double schedule_seconds_left(const struct schedule *schedule, int64_t step, double elapsed) {
    double left = -1;
    if (schedule->seconds > 0) left = schedule->seconds - elapsed;
    if (schedule->steps > 0 && step > 0) {
        const double by_steps = (double)(schedule->steps - step) * pace(step, elapsed);
        left = left < 0 ? by_steps : smaller(left, by_steps);
    }
    return left;
}
