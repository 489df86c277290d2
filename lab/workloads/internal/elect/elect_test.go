package elect

import (
	"context"
	"errors"
	"testing"
	"time"

	"k8s.io/client-go/kubernetes/fake"
)

func TestOneWorksAtATimeAndTheLeaseIsGivenBack(t *testing.T) {
	client := fake.NewClientset()
	first, stopFirst := context.WithCancel(context.Background())
	started := make(chan string, 2)
	run := func(ctx context.Context, name string) <-chan error {
		ended := make(chan error, 1)
		go func() {
			ended <- Run(ctx, client, "n", "l", name, func(ctx context.Context) error {
				started <- name
				<-ctx.Done()
				return nil
			})
		}()
		return ended
	}
	firstEnded := run(first, "first")
	if got := <-started; got != "first" {
		t.Fatalf("%s started", got)
	}
	second, stopSecond := context.WithCancel(context.Background())
	secondEnded := run(second, "second")
	select {
	case got := <-started:
		t.Fatalf("%s started beside the first", got)
	case <-time.After(3 * time.Second):
	}
	stopFirst()
	if err := <-firstEnded; err != nil {
		t.Fatalf("the first ended with %v", err)
	}
	select {
	case <-started:
	case <-time.After(8 * time.Second): // well below the lease's 15 s
		t.Fatal("the second did not start after the first gave the lease back")
	}
	stopSecond()
	if err := <-secondEnded; err != nil {
		t.Fatalf("the second ended with %v", err)
	}
}

func TestTheErrorOfTheWorkComesBack(t *testing.T) {
	want := errors.New("broken")
	got := Run(context.Background(), fake.NewClientset(), "n", "l", "a", func(context.Context) error { return want })
	if !errors.Is(got, want) {
		t.Fatalf("ended with %v, want %v", got, want)
	}
}
