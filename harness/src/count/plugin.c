/* Counts a guest's instructions by role and by block. `ringmark count` compiles this against the
 * plugin interface (API) of the emulator at hand and loads it into `qemu-system-x86_64 -plugin`.
 *
 * A role is a side of the measurement: the server, the load, or anything else. A process says its
 * own by a long nop (see marks.rs), a task inherits that of the task that makes it. Nothing here
 * needs a symbol, a register or the guest's memory, so that it works from the first interface on:
 *
 * - The kernel changes tasks by `mov THREAD_SP(%rsi),%rsp`, which is nowhere else
 *   (__switch_to_asm in arch/x86/entry/entry_64.S). The address that it reads names the task.
 * - A task is made when somebody else stores to that address (copy_thread in
 *   arch/x86/kernel/process.c).
 *
 * One virtual CPU, because there is one current task. Interrupts count for the task that they
 * interrupt, as in the kernel's own accounting. */

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if !defined(API) || API < 1 || API > 5
#error "define API: the emulator's version of the plugin interface, 1 to 5"
#endif

/* What is used of the interface, as QEMU's documentation describes it. */
struct qemu_plugin_tb;
struct qemu_plugin_insn;
enum { NO_REGISTERS = 0 };
/* Reads alone are not reported by QEMU 7.2. */
enum { ANY_ACCESS = 3 };

void qemu_plugin_register_vcpu_tb_trans_cb(uint64_t id,
                                           void (*callback)(uint64_t, struct qemu_plugin_tb *));
void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *tb,
                                          void (*callback)(unsigned, void *), int flags,
                                          void *data);
void qemu_plugin_register_vcpu_insn_exec_cb(struct qemu_plugin_insn *insn,
                                            void (*callback)(unsigned, void *), int flags,
                                            void *data);
void qemu_plugin_register_vcpu_mem_cb(struct qemu_plugin_insn *insn,
                                      void (*callback)(unsigned, uint32_t, uint64_t, void *),
                                      int flags, int accesses, void *data);
size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *tb);
uint64_t qemu_plugin_tb_vaddr(const struct qemu_plugin_tb *tb);
struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *tb, size_t index);
size_t qemu_plugin_insn_size(const struct qemu_plugin_insn *insn);
#if API < 3
const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *insn);
#else
size_t qemu_plugin_insn_data(const struct qemu_plugin_insn *insn, void *to, size_t size);
#endif

__attribute__((visibility("default"))) int qemu_plugin_version = API;

/* The numbers of marks.rs. */
enum role { OTHER, SERVER, LOAD, UNKNOWN, ROLES };
enum { BEGIN = 16, END = 17 };

/* A run of instructions without a jump into or out of it. */
struct block {
    uint64_t start;
    uint64_t length; /* in instructions */
    uint64_t runs;   /* by tasks of the server, within the window */
    struct block *next;
};

struct task {
    uint64_t address; /* where its stack pointer is kept; 0: the place is free */
    enum role role;
    uint64_t window; /* the last one in which it ran */
    struct task *next;
};

enum { BUCKETS = 1 << 16 };

static struct block *blocks[BUCKETS];
static struct task *tasks[BUCKETS];
static struct task boot_task = {.role = UNKNOWN};
static struct task *current = &boot_task;
static FILE *out;
static bool counting;
static uint64_t window;
static uint32_t stack_offset; /* THREAD_SP; 0: not seen yet */
static uint64_t executed[ROLES][2]; /* instructions: user, kernel */
static uint64_t switches[ROLES], ran[ROLES];

static size_t bucket(uint64_t key) {
    return (key * 0x9e3779b97f4a7c15ull) >> 48;
}

static void *allocate(size_t size) {
    void *fresh = calloc(1, size);
    if (!fresh) {
        fprintf(stderr, "ringmark's plugin: no memory\n");
        exit(1);
    }
    return fresh;
}

static bool is_kernel(uint64_t address) {
    return address >> 63;
}

static struct block *block_at(uint64_t start, uint64_t length) {
    struct block **first = &blocks[bucket(start)];
    for (struct block *block = *first; block; block = block->next) {
        if (block->start == start && block->length == length) {
            return block;
        }
    }
    struct block *block = allocate(sizeof *block);
    *block = (struct block){.start = start, .length = length, .next = *first};
    return *first = block;
}

static struct task *task_at(uint64_t address) {
    struct task **first = &tasks[bucket(address)];
    for (struct task *task = *first; task; task = task->next) {
        if (task->address == address) {
            return task;
        }
    }
    struct task *task = allocate(sizeof *task);
    *task = (struct task){.address = address, .role = UNKNOWN, .next = *first};
    return *first = task;
}

static void begin(void) {
    memset(executed, 0, sizeof executed);
    memset(switches, 0, sizeof switches);
    memset(ran, 0, sizeof ran);
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct block *block = blocks[i]; block; block = block->next) {
            block->runs = 0;
        }
    }
    window++;
    counting = true;
}

static void end(void) {
    static const char *const names[ROLES] = {"other", "server", "load", "unknown"};
    counting = false;
    fprintf(out, "window %lu\n", window);
    for (int role = 0; role < ROLES; role++) {
        fprintf(out, "role %s %lu %lu %lu %lu\n", names[role], executed[role][0],
                executed[role][1], ran[role], switches[role]);
    }
    for (size_t i = 0; i < BUCKETS; i++) {
        for (struct block *block = blocks[i]; block; block = block->next) {
            if (block->runs) {
                fprintf(out, "block %lx %lu %lu\n", block->start, block->length, block->runs);
            }
        }
    }
    fprintf(out, "end\n");
    fflush(out);
}

static void block_runs(unsigned cpu, void *data) {
    (void)cpu;
    struct block *block = data;
    executed[current->role][is_kernel(block->start)] += block->length;
    block->runs += counting && current->role == SERVER;
}

static void marked(unsigned cpu, void *data) {
    (void)cpu;
    uint64_t code = (uintptr_t)data;
    if (code == BEGIN) {
        begin();
    } else if (code == END) {
        end();
    } else if (code < UNKNOWN) {
        current->role = code;
    }
}

static void switched(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    (void)cpu, (void)info, (void)data;
    current = task_at(address);
    switches[current->role]++;
    if (current->window != window) {
        current->window = window;
        ran[current->role]++;
    }
}

static void stored(unsigned cpu, uint32_t info, uint64_t address, void *data) {
    (void)cpu, (void)info;
    /* Before the first switch any structure may be meant: an address more does no harm. */
    if (!stack_offset || stack_offset == (uintptr_t)data) {
        task_at(address)->role = current->role == UNKNOWN ? OTHER : current->role;
    }
}

static uint32_t number(const uint8_t *bytes) {
    uint32_t value;
    memcpy(&value, bytes, sizeof value);
    return value;
}

/* The offset of `mov REGISTER,OFFSET(BASE)` of 64 bits, or 0. */
static uint32_t stored_at(const uint8_t *bytes, size_t size) {
    bool is_store = (bytes[0] & 0xf8) == 0x48 && bytes[1] == 0x89 && (bytes[2] & 0xc0) == 0x80;
    bool of_stack_pointer = !(bytes[0] & 4) && (bytes[2] & 0x38) == 0x20;
    bool has_index_byte = (bytes[2] & 7) == 4;
    if (!is_store || of_stack_pointer || size != 7u + has_index_byte) {
        return 0;
    }
    uint32_t offset = number(bytes + 3 + has_index_byte);
    /* No task is smaller than a kibibyte, or as large as sixteen. */
    return offset >= 0x400 && offset < 0x4000 ? offset : 0;
}

static void look(struct qemu_plugin_insn *insn, bool in_kernel) {
    static const uint8_t mark[] = {0x0f, 0x1f, 0x84, 0x00};
    static const uint8_t change[] = {0x48, 0x8b, 0xa6};
    uint8_t bytes[16] = {0};
    size_t size = qemu_plugin_insn_size(insn);
    if (size < 7 || size > sizeof bytes) {
        return;
    }
#if API < 3
    memcpy(bytes, qemu_plugin_insn_data(insn), size);
#else
    qemu_plugin_insn_data(insn, bytes, size);
#endif
    uint32_t last = number(bytes + 4);
    if (!in_kernel && size == 8 && !memcmp(bytes, mark, sizeof mark) && last >> 16 == 0x524d) {
        void *code = (void *)(uintptr_t)(last & 0xffff);
        qemu_plugin_register_vcpu_insn_exec_cb(insn, marked, NO_REGISTERS, code);
    } else if (in_kernel && size == 7 && !memcmp(bytes, change, sizeof change)) {
        stack_offset = number(bytes + 3);
        qemu_plugin_register_vcpu_mem_cb(insn, switched, NO_REGISTERS, ANY_ACCESS, NULL);
    } else if (in_kernel && stored_at(bytes, size)) {
        void *offset = (void *)(uintptr_t)stored_at(bytes, size);
        qemu_plugin_register_vcpu_mem_cb(insn, stored, NO_REGISTERS, ANY_ACCESS, offset);
    }
}

static void translated(uint64_t id, struct qemu_plugin_tb *tb) {
    (void)id;
    size_t length = qemu_plugin_tb_n_insns(tb);
    uint64_t start = qemu_plugin_tb_vaddr(tb);
    void *block = block_at(start, length);
    qemu_plugin_register_vcpu_tb_exec_cb(tb, block_runs, NO_REGISTERS, block);
    for (size_t i = 0; i < length; i++) {
        look(qemu_plugin_tb_get_insn(tb, i), is_kernel(start));
    }
}

__attribute__((visibility("default"))) int qemu_plugin_install(uint64_t id, const void *info,
                                                               int argc, char **argv) {
    (void)info;
    if (argc != 1 || strncmp(argv[0], "out=", 4)) {
        fprintf(stderr, "ringmark's plugin: give it out=FILE\n");
        return 1;
    }
    out = fopen(argv[0] + 4, "w");
    if (!out) {
        perror(argv[0] + 4);
        return 1;
    }
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    return 0;
}
