#include "shim/thread.h"

__thread struct thread thread_this;
