#define PATH_LENGTH 128

struct open_event {
	unsigned int pid;
	char comm[16];
	char path[PATH_LENGTH];
};
