//go:build !js

// Package docs_test holds the guides to the code: codes, flags, metrics and links.
package docs_test

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"tallow/internal/core/fault"
)

const root = ".."

func read(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// section is what stands under a heading, up to the next one that is not below it.
func section(t *testing.T, text, heading string) string {
	t.Helper()
	_, after, found := strings.Cut(text, "\n"+heading+"\n")
	if !found {
		t.Fatalf("no heading %q", heading)
	}
	level := strings.IndexByte(heading, ' ')
	if end := regexp.MustCompile(fmt.Sprintf(`(?m)^#{1,%d} `, level)).FindStringIndex(after); end != nil {
		after = after[:end[0]]
	}
	return after
}

// rows are the cells of the lines of tables whose first cell is code, by that code.
func rows(t *testing.T, text string) map[string][]string {
	t.Helper()
	list := map[string][]string{}
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		name := strings.Trim(cells[0], "`")
		if list[name] != nil {
			t.Errorf("%s has two rows", name)
		}
		for i, cell := range cells {
			if cell == "" {
				t.Errorf("%s: cell %d is empty", name, i+1)
			}
		}
		list[name] = cells
	}
	return list
}

// same reports names that only one of the two has.
func same(t *testing.T, what string, documented, real []string) {
	t.Helper()
	if len(real) == 0 {
		t.Fatalf("no %ss found in the code", what)
	}
	for _, name := range real {
		if !slices.Contains(documented, name) {
			t.Errorf("%s %s is not documented", what, name)
		}
	}
	for _, name := range documented {
		if !slices.Contains(real, name) {
			t.Errorf("%s %s is documented and does not exist", what, name)
		}
	}
}

func keys(m map[string][]string) []string { return slices.Sorted(maps.Keys(m)) }

func TestErrorCodes(t *testing.T) {
	table := rows(t, section(t, read(t, "docs/embedding.md"), "## Errors"))
	var codes []string
	for _, code := range fault.Codes() {
		codes = append(codes, string(code))
	}
	same(t, "code", keys(table), codes)
	for code, cells := range table {
		if len(cells) != 3 {
			t.Errorf("%s has %d cells, not code, when, what to do", code, len(cells))
		}
	}
}

// TestCodesNamedElsewhere: a code in parentheses, as the troubleshooting guide writes them, exists.
func TestCodesNamedElsewhere(t *testing.T) {
	var codes []string
	for _, code := range fault.Codes() {
		codes = append(codes, string(code))
	}
	named := regexp.MustCompile("\\(`([a-z]+(?:-[a-z]+)*)`\\)").FindAllStringSubmatch(read(t, "docs/troubleshooting.md"), -1)
	if len(named) == 0 {
		t.Fatal("no codes found")
	}
	for _, m := range named {
		if !slices.Contains(codes, m[1]) {
			t.Errorf("code %s does not exist", m[1])
		}
	}
}

type serverFlag struct{ name, fallback string }

var (
	flagLine    = regexp.MustCompile(`^  -(\S+)(?: (\S+))?$`)
	flagDefault = regexp.MustCompile(`\(default (?:"([^"]*)"|([^")]*))\)$`)
)

// serverFlags asks the server itself. What -h says of a flag's default it leaves out for the zero value.
func serverFlags(t *testing.T) []serverFlag {
	t.Helper()
	cmd := exec.Command("go", "run", "./server", "-h")
	cmd.Dir = root
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	var list []serverFlag
	for line := range strings.Lines(string(out)) {
		line = strings.TrimRight(line, "\n")
		if m := flagLine.FindStringSubmatch(line); m != nil {
			f := serverFlag{m[1], "–"}
			if m[2] == "" { // takes no value
				f.fallback = "`false`"
			}
			list = append(list, f)
		} else if m := flagDefault.FindStringSubmatch(line); m != nil && len(list) > 0 {
			list[len(list)-1].fallback = "`" + m[1] + m[2] + "`"
		}
	}
	return list
}

func TestServerFlags(t *testing.T) {
	operators := read(t, "docs/operators.md")
	table := rows(t, section(t, operators, "## Flags"))
	var names []string
	for _, f := range serverFlags(t) {
		names = append(names, "-"+f.name)
		cells := table["-"+f.name]
		if cells == nil {
			continue // reported below
		}
		if len(cells) != 4 {
			t.Errorf("-%s has %d cells, not flag, environment, default, meaning", f.name, len(cells))
			continue
		}
		if want := "`TALLOW_" + strings.ToUpper(strings.ReplaceAll(f.name, "-", "_")) + "`"; cells[1] != want {
			t.Errorf("-%s: environment %s, want %s", f.name, cells[1], want)
		}
		if cells[2] != f.fallback {
			t.Errorf("-%s: default %s, want %s", f.name, cells[2], f.fallback)
		}
	}
	same(t, "flag", keys(table), names)
	if config := read(t, "server/config.go"); !strings.Contains(config, `envPrefix = "TALLOW_"`) {
		t.Error("environment variables have another prefix now")
	}

	// What examples use exists.
	environment := regexp.MustCompile(`\bTALLOW_([A-Z_]+)`)
	for _, guide := range guides(t) {
		for _, m := range environment.FindAllStringSubmatch(read(t, guide), -1) {
			if name := "-" + strings.ToLower(strings.ReplaceAll(m[1], "_", "-")); !slices.Contains(names, name) {
				t.Errorf("%s: %s does not exist", guide, m[0])
			}
		}
	}
}

func TestMetrics(t *testing.T) {
	table := rows(t, section(t, read(t, "docs/operators.md"), "## Health and metrics"))
	var names []string
	for _, m := range regexp.MustCompile(`newMetric\(prometheus\.\w+, "(\w+)"`).FindAllStringSubmatch(read(t, "server/metrics.go"), -1) {
		names = append(names, "tallow_"+m[1])
	}
	same(t, "metric", keys(table), names)
}

// guides are the documents that this test reads, from the root of the repository.
func guides(t *testing.T) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(found) == 0 {
		t.Fatalf("no guides: %v", err)
	}
	list := []string{"README.md"}
	for _, name := range found {
		list = append(list, "docs/"+filepath.Base(name))
	}
	return list
}

// TestSecurityTests: the tests that the promises rest on exist.
func TestSecurityTests(t *testing.T) {
	promises := section(t, read(t, "docs/security.md"), "## Promises")
	tests := 0
	for _, promise := range strings.Split(promises, "\n### ")[1:] {
		name, _, _ := strings.Cut(promise, "\n")
		before := tests
		for _, m := range regexp.MustCompile("(?m)^- `([^`]+)`: (.*)$").FindAllStringSubmatch(promise, -1) {
			where, list := m[1], m[2]
			var sources strings.Builder
			if strings.HasSuffix(where, ".mjs") {
				sources.WriteString(read(t, where))
			} else {
				files, err := filepath.Glob(filepath.Join(root, where, "*_test.go"))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					sources.WriteString(read(t, strings.TrimPrefix(file, root+"/")))
				}
			}
			for _, m := range regexp.MustCompile("`(\\w+)`|(\"[^\"]+\")").FindAllStringSubmatch(list, -1) {
				declaration := "\nfunc " + m[1] + "("
				if m[2] != "" {
					declaration = "test(" + m[2]
				}
				if tests++; !strings.Contains(sources.String(), declaration) {
					t.Errorf("%s: %s has no %s%s", name, where, m[1], m[2])
				}
			}
		}
		if tests == before {
			t.Errorf("%s: no test", name)
		}
	}
	if tests == 0 {
		t.Error("no tests found")
	}
}

var (
	codeBlock  = regexp.MustCompile("(?ms)^```.*?^```$|^ {4}.*?$")
	inlineCode = regexp.MustCompile("`[^`\n]*`")
	link       = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading    = regexp.MustCompile(`(?m)^#+ +(.*)$`)
	dropped    = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors are the names that a document's headings get.
func anchors(text string) map[string]bool {
	names := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		name := dropped.ReplaceAllString(strings.ToLower(m[1]), "")
		names[strings.ReplaceAll(name, " ", "-")] = true
	}
	return names
}

func TestLinks(t *testing.T) {
	links := 0
	for _, guide := range guides(t) {
		text := inlineCode.ReplaceAllString(codeBlock.ReplaceAllString(read(t, guide), ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			target := m[1]
			if regexp.MustCompile(`^[a-z]+:`).MatchString(target) {
				continue // somebody else's page
			}
			links++
			file, anchor, _ := strings.Cut(target, "#")
			name := guide
			if file != "" {
				name = filepath.ToSlash(filepath.Join(filepath.Dir(guide), file))
			}
			switch _, err := os.Stat(filepath.Join(root, name)); {
			case errors.Is(err, os.ErrNotExist):
				t.Errorf("%s: %s does not exist", guide, target)
			case err != nil:
				t.Error(err)
			case anchor != "" && strings.HasSuffix(name, ".md") && !anchors(read(t, name))[anchor]:
				t.Errorf("%s: no heading for %s", guide, target)
			}
		}
	}
	if links == 0 {
		t.Error("no links found")
	}
}
