/* Stands in for pyxis in tests: its srun options, and a real change of the root folder.
 *
 * IMAGE is a folder that becomes the root, read through an overlay, with the mounts bound into it. As with
 * pyxis, variables of the image (IMAGE/environment, NAME=VALUE lines) win over the job's, except those named
 * by --container-env. Not modelled: image formats and registries, users, hooks, entry points.
 *
 * cc -shared -fPIC -o minipyxis.so minipyxis.c
 */
#define _GNU_SOURCE
#include <sched.h>
#include <slurm/spank.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

SPANK_PLUGIN(minipyxis, 1)

enum { IMAGE, MOUNTS, WORKDIR, ENVIRONMENT, FLAGS };
static char *values[FLAGS + 1];

static int taken(int which, const char *argument, int remote) {
  (void)remote;
  free(values[which]);
  values[which] = strdup(argument ? argument : "");
  return 0;
}

static struct spank_option options[] = {
    {"container-image", "IMAGE", "folder that becomes the root", 1, IMAGE, taken},
    {"container-mounts", "SRC:DST[:FLAGS],...", "folders to bind", 1, MOUNTS, taken},
    {"container-workdir", "PATH", "folder to start in", 1, WORKDIR, taken},
    {"container-env", "NAMES", "variables of the job that win over the image's", 1, ENVIRONMENT, taken},
    {"no-container-mount-home", NULL, "accepted", 0, FLAGS, taken},
    {"container-writable", NULL, "accepted", 0, FLAGS, taken},
    SPANK_OPTIONS_TABLE_END};

int slurm_spank_init(spank_t sp, int ac, char **av) {
  (void)ac;
  (void)av;
  spank_context_t context = spank_context();
  if (context == S_CTX_LOCAL || context == S_CTX_REMOTE || context == S_CTX_ALLOCATOR)
    for (int i = 0; options[i].name; i++)
      if (spank_option_register(sp, &options[i]) != ESPANK_SUCCESS) return -1;
  return 0;
}

static int run(const char *script, const char *a, const char *b) {
  setenv("A", a, 1);
  setenv("B", b, 1);
  int status = system(script);
  unsetenv("A");
  unsetenv("B");
  return status;
}

static int named(const char *list, const char *name) {
  size_t length = strlen(name);
  for (const char *at = list; at; at = strchr(at, ','), at = at ? at + 1 : NULL)
    if (!strncmp(at, name, length) && (at[length] == ',' || !at[length])) return 1;
  return 0;
}

static void take_environment(spank_t sp) {
  char path[4096], line[4096];
  snprintf(path, sizeof path, "%s/environment", values[IMAGE]);
  FILE *file = fopen(path, "r");
  while (file && fgets(line, sizeof line, file)) {
    line[strcspn(line, "\n")] = 0;
    char *value = strchr(line, '=');
    if (!value) continue;
    *value++ = 0;
    if (!named(values[ENVIRONMENT], line)) spank_setenv(sp, line, value, 1);
  }
  if (file) fclose(file);
}

static int enter(void) {
  char root[] = "/run/minipyxis.XXXXXX";
  struct stat found;
  if (stat(values[IMAGE], &found)) {
    slurm_error("pyxis: No such file or directory: %s", values[IMAGE]);
    return -1;
  }
  if (unshare(CLONE_NEWNS) || mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) || !mkdtemp(root)) return -1;
  if (run("mount -t tmpfs tmpfs \"$A\" && cd \"$A\" && mkdir up work root && mount -t overlay overlay"
          " -o lowerdir=\"$B\",upperdir=up,workdir=work root && cd root && mkdir -p proc sys dev tmp etc"
          " && mount -t proc proc proc && mount --rbind /dev dev && touch etc/hosts"
          " && mount --bind /etc/hosts etc/hosts", root, values[IMAGE])) return -1;
  char *next = NULL;
  for (char *each = values[MOUNTS] ? strtok_r(values[MOUNTS], ",", &next) : NULL; each;
       each = strtok_r(NULL, ",", &next)) {
    char *rest = NULL, *source = strtok_r(each, ":", &rest), *target = strtok_r(NULL, ":", &rest), inside[4096];
    snprintf(inside, sizeof inside, "%s/root%s", root, target ? target : source);
    if (run("if [ -d \"$A\" ]; then mkdir -p \"$B\"; else mkdir -p \"$(dirname \"$B\")\"; touch \"$B\"; fi"
            " && mount --rbind \"$A\" \"$B\"", source, inside)) {
      slurm_error("pyxis: couldn't mount %s", source);
      return -1;
    }
  }
  char path[64];
  snprintf(path, sizeof path, "%s/root", root);
  return chroot(path) || chdir("/") ? -1 : 0;
}

int slurm_spank_task_init_privileged(spank_t sp, int ac, char **av) {
  (void)ac;
  (void)av;
  if (!values[IMAGE]) return 0;
  take_environment(sp);
  return enter();
}

/* slurmstepd changes the folder after the hook above */
int slurm_spank_task_init(spank_t sp, int ac, char **av) {
  (void)sp;
  (void)ac;
  (void)av;
  return values[IMAGE] && chdir(values[WORKDIR] ? values[WORKDIR] : "/") ? -1 : 0;
}
