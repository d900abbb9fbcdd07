package caffe

import (
	"fmt"
	"strings"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/quantgate/quantgate/caffe/internal/pb"
)

// place is where a layer of a prototxt starts, and what it sets that Caffe's own layers do not have. The parsed message knows
// neither.
type place struct {
	line    int
	unknown []string // "pooling_param.ceil_mode (line 14)"
}

// trainingOnly lists parameters that change nothing at test time.
var trainingOnly = map[protoreflect.Name]bool{
	"weight_filler": true, "bias_filler": true, "filler": true, "engine": true, "force_nd_im2col": true, "stable_prod_grad": true,
	"moving_average_fraction": true,
}

// scan walks a prototxt that has been parsed, so it need not check anything.
func scan(text []byte) []place {
	var (
		places []place
		path   []string // names of the messages that are open
		name   string   // the identifier read last, until a value follows it
		at     int      // its line
		line   = 1
	)
	params := (&pb.LayerParameter{}).ProtoReflect().Descriptor().Fields()
	field := func() {
		if len(path) != 2 || len(places) == 0 || name == "" {
			return
		}
		param := params.ByName(protoreflect.Name(path[1]))
		if param == nil || !strings.HasSuffix(path[1], "_param") || trainingOnly[protoreflect.Name(name)] {
			return
		}
		if param.Message().Fields().ByName(protoreflect.Name(name)) == nil {
			last := &places[len(places)-1]
			last.unknown = append(last.unknown, fmt.Sprintf("%s.%s (line %d)", path[1], name, at))
		}
	}
	for i := 0; i < len(text); i++ {
		switch c := text[i]; {
		case c == '\n':
			line++
		case c == '#':
			for i+1 < len(text) && text[i+1] != '\n' {
				i++
			}
		case c == '"' || c == '\'':
			for i++; i < len(text) && text[i] != c; i++ {
				if text[i] == '\\' {
					i++
				}
			}
		case c == '{' || c == '<':
			if len(path) == 0 && (name == "layer" || name == "layers") {
				places = append(places, place{line: at})
			}
			field()
			path, name = append(path, name), ""
		case c == '}' || c == '>':
			path, name = path[:max(len(path)-1, 0)], ""
		case c == ':':
			// A message may have a colon as well: its name is needed at the brace.
			if rest := strings.TrimLeft(string(text[i+1:min(i+64, len(text))]), " \t\r\n"); rest == "" || rest[0] != '{' && rest[0] != '<' {
				field()
				name = ""
			}
		case isWord(c):
			start := i
			for i+1 < len(text) && isWord(text[i+1]) {
				i++
			}
			name, at = string(text[start:i+1]), line
		}
	}
	return places
}

func isWord(c byte) bool {
	return c == '_' || c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
}
