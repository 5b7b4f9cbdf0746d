#include "gantry/base/interrupt.h"

#include <unistd.h>

#include <atomic>
#include <csignal>

namespace gantry::base {
namespace {

std::atomic<bool> interrupt_flag{false};
static_assert(std::atomic<bool>::is_always_lock_free, "the flag is set inside a signal handler");

void mask_signals(int how) {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGINT);
  sigaddset(&signals, SIGTERM);
  ::sigprocmask(how, &signals, nullptr);
}

void on_signal(int signal) {
  if (interrupt_flag.exchange(true)) ::_exit(128 + signal);
}

}  // namespace

void install_interrupt_handler() {
  struct sigaction action {};
  action.sa_handler = on_signal;
  sigemptyset(&action.sa_mask);
  ::sigaction(SIGINT, &action, nullptr);
  ::sigaction(SIGTERM, &action, nullptr);
  mask_signals(SIG_UNBLOCK);
}

void hold_interrupts() { mask_signals(SIG_BLOCK); }

bool interrupted() { return interrupt_flag.load(std::memory_order_relaxed); }
void set_interrupted(bool value) { interrupt_flag.store(value); }

}  // namespace gantry::base
