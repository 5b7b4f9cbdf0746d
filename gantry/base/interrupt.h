#pragma once
// Ctrl-C and SIGTERM: long verbs ask between steps and stop cleanly; a second signal ends the process at once.

namespace gantry::base {

/// Installs the handlers once a process, and hears what hold_interrupts held back.
void install_interrupt_handler();
/// Holds SIGINT and SIGTERM back, across exec too, until install_interrupt_handler. For a child between fork and exec.
void hold_interrupts();
/// True after SIGINT or SIGTERM.
bool interrupted();
/// For tests, and for a caller that has handled the request.
void set_interrupted(bool value);

}  // namespace gantry::base
