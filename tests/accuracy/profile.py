"""Reading profile.proto (github.com/google/pprof) far enough to count: stacks of names, with values."""
import gzip


def varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def fields(data):
    at = 0
    while at < len(data):
        key, at = varint(data, at)
        if key & 7 == 0:
            value, at = varint(data, at)
        elif key & 7 == 2:
            length, at = varint(data, at)
            value, at = data[at:at + length], at + length
        else:
            raise ValueError(f"wire type {key & 7}")
        yield key >> 3, value


def numbers(data):
    at = 0
    while at < len(data):
        value, at = varint(data, at)
        yield value


class Profile:
    """samples: [(function names, leaf first; values)]; labels: [{key: text}] of each; stacks: as samples with the first
    value only; comments: [text]; period."""

    def __init__(self, gzipped):
        samples, labels, strings, comments, functions, locations, self.period = [], [], [], [], {}, {}, 0
        for number, value in fields(gzip.decompress(gzipped)):
            if number == 2:
                samples.append(dict(fields(value)))
                labels.append([dict(fields(v)) for n, v in fields(value) if n == 3])
            elif number == 4:
                line = [dict(fields(v)) for n, v in fields(value) if n == 4]
                locations[dict(fields(value))[1]] = line[-1][1]
            elif number == 5:
                function = dict(fields(value))
                functions[function[1]] = function[2]
            elif number == 6:
                strings.append(value.decode())
            elif number == 12:
                self.period = value
            elif number == 13:
                comments.append(value)
        self.comments = [strings[c] for c in comments]
        self.samples = [([strings[functions[locations[i]]] for i in numbers(s[1])],
                         [value - (value >> 63 << 64) for value in numbers(s[2])]) for s in samples]
        self.labels = [{strings[label[1]]: strings[label[2]] for label in row if 2 in label} for row in labels]
        self.stacks = [(names, values[0]) for names, values in self.samples]

    def total(self):
        return sum(count for _, count in self.stacks)

    def count(self, holds):
        return sum(count for stack, count in self.stacks if holds(stack))

    def labelled(self, key, text):
        return sum(values[0] for (_, values), labels in zip(self.samples, self.labels) if labels.get(key) == text)
