package bridge

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/hack-pad/safejs"

	"tallow/internal/bridge/bytes"
	"tallow/internal/core/bulk"
	"tallow/internal/core/fault"
	"tallow/internal/core/host"
	"tallow/internal/core/room"
)

// collectAt is by how many percent the heap may grow before garbage is collected (GOGC). WebAssembly's memory never shrinks, so what the heap has
// grown to once is the tab's for good; while it sends or receives most of the heap is buffers that are used again, and a collection finds little.
const collectAt = 40

// instance is one load() of a page.
type instance struct {
	version string
	engine  bulk.Engine
	emit    safejs.Value // of web/boot.js: takes an event as JSON, and dispatches it later

	ctx context.Context // of everything that the instance does

	mu       sync.Mutex
	storage  *bytes.Storage            // of rooms that are not remembered
	own      map[string]*bytes.Storage // of those that are, by name
	rooms    map[int]*member
	received map[string]received // by delivery
	closed   context.CancelFunc  // once the page has closed the instance
}

// received is what was received in one delivery.
type received struct {
	storage *bytes.Storage
	file    *bytes.File
}

// member is a room that is being entered, or that was.
type member struct {
	number  int
	cancel  context.CancelFunc // of entering
	entered chan struct{}      // closed when entering is over, well or not
	room    *room.Room         // nil if it failed; read it after entered
	storage string             // the name of its own, if it could be opened; "": it is to have none

	leave func() // once: leaves, and tells the page
}

// Run connects with the page, by the object that it has put into the global tallowBoot, and serves it until it closes
// the instance. version is shown to the page.
func Run(version string) error {
	boot, err := safejs.Global().Get("tallowBoot")
	if err != nil {
		return fmt.Errorf("bridge: boot: %w", err)
	}
	object, err := boot.Get("host")
	if err != nil {
		return fmt.Errorf("bridge: boot: %w", err)
	}
	emit, err := boot.Get("emit")
	if err != nil {
		return fmt.Errorf("bridge: boot: %w", err)
	}
	host.Boot(safejs.Unsafe(object))
	debug.SetGCPercent(collectAt)
	ctx, closed := context.WithCancel(context.Background())
	defer closed()
	i := &instance{
		version:  version,
		emit:     emit,
		ctx:      ctx,
		rooms:    map[int]*member{},
		own:      map[string]*bytes.Storage{},
		received: map[string]received{},
		closed:   closed,
	}
	enter, err := safejs.FuncOf(i.enter)
	if err != nil {
		return fmt.Errorf("bridge: boot: %w", err)
	}
	defer enter.Release()
	if err := boot.Set("enter", enter.Value()); err != nil {
		return fmt.Errorf("bridge: boot: %w", err)
	}
	<-ctx.Done()
	return nil
}

// enter is called by web/boot.js with the number of a call, a method and its arguments as JSON. It never blocks: the
// outcome comes as an event of type settle.
func (i *instance) enter(_ safejs.Value, args []safejs.Value) any {
	number, err0 := args[0].Int()
	method, err1 := args[1].String()
	text, err2 := args[2].String()
	go func() {
		value, err := any(nil), errors.Join(err0, err1, err2)
		if err == nil {
			value, err = i.call(method, []byte(text))
		}
		i.send(settleEvent(number, value, err))
		if method == "close" && err == nil {
			i.closed()
		}
	}()
	return nil
}

// call runs a method. A panic is reported as an error, with its stack as the cause, and ends only this call.
func (i *instance) call(method string, args []byte) (value any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fault.Newf(fault.Internal, "%v\n%s", p, debug.Stack())
		}
	}()
	m, known := methods[method]
	if !known {
		return nil, fault.Newf(fault.Internal, "no method %q", method)
	}
	return m(i, args)
}

// send hands an event to the page. Events are dispatched in the order in which they are sent.
func (i *instance) send(event any) {
	if _, err := i.emit.Invoke(string(appendJSON(nil, event))); err != nil { // it only queues
		panic(fmt.Sprintf("bridge: emit: %v", err))
	}
}
