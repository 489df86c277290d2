// gitlab-double stands in for Omnibus GitLab in the lab: installed from a package of the real name, it
// checks gitlab.rb as strictly as it can and listens where GitLab would. It is no GitLab.
//
//	gitlab-ctl COMMAND [SERVICE]   (by that name: a symbolic link)
//	gitlab-rails runner FILE       (likewise; only the platform's own script)
//	gitlab-double serve            what gitlab-runsvdir.service runs
package main

import (
	"errors"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"time"
)

func main() {
	log.SetFlags(0)
	var err error
	switch {
	case filepath.Base(os.Args[0]) == "gitlab-ctl":
		err = control(os.Args[1:])
	case filepath.Base(os.Args[0]) == "gitlab-rails":
		err = rails(os.Args[1:], os.Stdin, os.Stdout, accessFile, time.Now())
	case len(os.Args) == 2 && os.Args[1] == "serve":
		err = serve()
	default:
		err = errors.New("run it as gitlab-ctl, or as gitlab-double serve")
	}
	var status exitStatus
	if errors.As(err, &status) {
		os.Exit(int(status))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}
