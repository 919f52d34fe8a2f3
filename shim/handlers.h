/* The handlers of descriptors and messages, one for each call they take (call_net.def names the numbers). */
#ifndef KEN_SHIM_HANDLERS_H
#define KEN_SHIM_HANDLERS_H

#include "shim/call.h"

#define TAKE(number, handler) call_handler handler;
#include "shim/call_net.def"
#undef TAKE

#endif
