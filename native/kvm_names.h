/* The capabilities that a probe asks for; kvm.c asks, kvm_names.c names. */
#ifndef KVM_NAMES_H
#define KVM_NAMES_H

#include "node_agent.h"

struct capability {
    const char *name;
    unsigned long number; /* KVM_CAP_* */
};

extern const struct capability capabilities[KNA_CAPABILITIES];

#endif
