/** A line of a file, without the white space around it. */
export type Line = {
  /** From 1. */
  readonly number: number
  /** Its bytes; where there are more than `maxBytes`, the first of them. */
  readonly bytes: Buffer
  readonly isCut: boolean
  /** How many bytes of the file there are up to its end. */
  readonly end: number
}

const NEWLINE = 10, BLANKS = [9, 11, 12, 13, 32]
const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

/**
 * Splits a stream into lines, at newlines alone: a JSON text may hold other characters that end a line elsewhere.
 *
 * @param maxBytes so much of a line is kept at most, so that memory is bounded whatever the file holds
 */
export async function* linesOf(chunks: AsyncIterable<Buffer>, maxBytes: number): AsyncGenerator<Line> {
  let parts: Buffer[] = []
  let length = 0
  let number = 0
  let end = 0
  const keep = (part: Buffer) => {
    if (length < maxBytes) parts.push(part.subarray(0, maxBytes - length))
    length += part.length
  }
  const finish = (): Line => {
    const bytes = trim(parts.length === 1 ? parts[0]! : Buffer.concat(parts), ++number)
    const line = { number, bytes, isCut: length > maxBytes, end }
    parts = []
    length = 0
    return line
  }
  for await (const chunk of chunks) {
    let start = 0
    for (let at = chunk.indexOf(NEWLINE); at >= 0; at = chunk.indexOf(NEWLINE, start)) {
      keep(chunk.subarray(start, at))
      end += at + 1 - start
      start = at + 1
      yield finish()
    }
    keep(chunk.subarray(start))
    end += chunk.length - start
  }
  if (length > 0) yield finish()
}

function trim(bytes: Buffer, number: number): Buffer {
  const isMarked = number === 1 && bytes.subarray(0, 3).equals(BYTE_ORDER_MARK)
  let start = isMarked ? 3 : 0
  let end = bytes.length
  while (start < end && BLANKS.includes(bytes[start] ?? 0)) start++
  while (end > start && BLANKS.includes(bytes[end - 1] ?? 0)) end--
  return bytes.subarray(start, end)
}
