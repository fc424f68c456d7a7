/*
 * /usr/bin/kata-node-agent of the packages: the interpreter, with everything that it needs beside it.
 *
 * libpython is linked in, the dynamic loader and the libraries are those below KNA_HOME (PT_INTERP and DT_RPATH name them), and the
 * modules are found there and nowhere else. So /proc/PID/exe, comm and the command line are the program's own, nothing is executed
 * twice at the start, and neither a host without Python nor one with an older C library, another Python, PYTHONPATH or
 * LD_LIBRARY_PATH makes a difference.
 *
 * Under the name python3 it is a plain interpreter with the same modules: `kata-node-agent dev` starts its children with that.
 */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <nss.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MODULES KNA_HOME "/python"

/* Where a host keeps the certificates that it trusts: OpenSSL was built to look where the build machine has them. */
static void trust_what_the_host_trusts(void)
{
	static const char *const bundles[] = {
		"/etc/pki/tls/certs/ca-bundle.crt",   /* RHEL, RHCOS, Fedora */
		"/etc/ssl/certs/ca-certificates.crt", /* Debian, Ubuntu */
		"/etc/ssl/ca-bundle.pem",             /* SUSE */
	};
	for (size_t i = 0; i < sizeof bundles / sizeof *bundles; i++)
		if (access(bundles[i], R_OK) == 0) {
			setenv("SSL_CERT_FILE", bundles[i], 0);
			return;
		}
}

/*
 * Only files and DNS: the name services of the host are plugins that want the host's C library. The group of our socket is
 * made by systemd-sysusers, which writes /etc/group.
 */
static void ask_no_plugins_of_the_host(void)
{
	__nss_configure_lookup("passwd", "files");
	__nss_configure_lookup("group", "files");
	__nss_configure_lookup("hosts", "files dns");
	__nss_configure_lookup("services", "files");
}

static PyStatus add_path(PyConfig *config, const wchar_t *folder)
{
	return PyWideStringList_Append(&config->module_search_paths, folder);
}

static PyStatus set_up(PyConfig *config, int argc, char **argv, int interpreter)
{
	PyStatus status;

	config->site_import = 0; /* it would read .pth files and look for a home of the user's */
	config->write_bytecode = 0;
	config->pathconfig_warnings = 0;
	config->parse_argv = interpreter;
	config->install_signal_handlers = 1;

#define TRY(call) do { status = (call); if (PyStatus_Exception(status)) return status; } while (0)
	TRY(PyConfig_SetBytesString(config, &config->home, MODULES));
	TRY(PyConfig_SetBytesString(config, &config->prefix, MODULES));
	TRY(PyConfig_SetBytesString(config, &config->exec_prefix, MODULES));
	TRY(PyConfig_SetBytesString(config, &config->base_prefix, MODULES));
	TRY(PyConfig_SetBytesString(config, &config->base_exec_prefix, MODULES));
	TRY(PyConfig_SetBytesString(config, &config->executable, KNA_HOME "/bin/python3"));
	TRY(PyConfig_SetBytesString(config, &config->base_executable, KNA_HOME "/bin/python3"));
	TRY(PyConfig_SetBytesString(config, &config->program_name, argv[0]));
	config->module_search_paths_set = 1;
	TRY(add_path(config, L"" MODULES "/stdlib"));
	TRY(add_path(config, L"" MODULES "/extensions"));
	TRY(add_path(config, L"" MODULES "/packages"));
	TRY(PyConfig_SetBytesArgv(config, argc, argv));
	if (!interpreter)
		TRY(PyConfig_SetBytesString(config, &config->run_command,
					    "from kata_node_agent.cli.main import main; main()"));
#undef TRY
	return PyStatus_Ok();
}

int main(int argc, char **argv)
{
	if (argc < 1)
		return 2; /* execve(2) may be called that way, and we must not read beyond */
	const char *slash = strrchr(argv[0], '/');
	const char *name = slash ? slash + 1 : argv[0];
	int interpreter = strncmp(name, "python", strlen("python")) == 0;

	trust_what_the_host_trusts();
	ask_no_plugins_of_the_host();

	/* Isolated: no PYTHON* variables, no modules of the user's or of the current folder. UTF-8 whatever the locale says. */
	PyPreConfig before;
	PyPreConfig_InitIsolatedConfig(&before);
	before.utf8_mode = 1;
	PyStatus status = Py_PreInitialize(&before);
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);

	PyConfig config;
	PyConfig_InitIsolatedConfig(&config);
	status = set_up(&config, argc, argv, interpreter);
	if (!PyStatus_Exception(status))
		status = Py_InitializeFromConfig(&config);
	PyConfig_Clear(&config);
	if (PyStatus_IsExit(status))
		return status.exitcode;
	if (PyStatus_Exception(status))
		Py_ExitStatusException(status);
	return Py_RunMain();
}
