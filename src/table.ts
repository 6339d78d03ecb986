import stringWidth from 'string-width'

/** How a column is headed, and how it lies. */
export type Column = {
  heading: string
  align?: 'right'
  /** What is in it is cut short, with an …, where the table is too wide. */
  shrinks?: boolean
  /** Left out where that is not enough, the last one first; the table says so. */
  optional?: boolean
  style?: (text: string) => string
}

/** A text; or a drawing, for the room that the other columns leave. */
export type Cell = string | ((width: number) => string)

const GAP = 2
/** What a drawing gets at least. */
const DRAWN = 10
/** Texts are cut no shorter than this while there are columns to leave out instead; and then no shorter than that. */
const READABLE = 16, LEAST = 6

/**
 * Rows in columns, the headings first, none wider than `width`: that is in cells of a terminal, of which an emoji
 * takes two.
 */
export function asTable(columns: (string | Column)[], rows: Cell[][], width = Infinity): string[] {
  const asked = columns.map((column): Column => (typeof column === 'string' ? { heading: column } : column))
  const { kept, widths } = layOut(asked.map((column, i) => measure(column, rows.map((row) => row[i] ?? ''))), width)
  const line = (cells: Cell[], isHeading: boolean) =>
    kept.map((i) => draw(cells[i] ?? '', widths[i]!, asked[i]!, isHeading)).join(' '.repeat(GAP)).trimEnd()
  const lines = [line(asked.map(({ heading }) => heading), true), ...rows.map((row) => line(row, false))]
  const missing = asked.filter((_, i) => !kept.includes(i)).map(({ heading }) => heading)
  return missing.length > 0 ? [...lines, noRoomFor(missing, width)] : lines
}

/** The line that names the columns that a table has no room for. */
export function noRoomFor(columns: string[], width: number): string {
  return fit(`No room for ${columns.join(', ')}: a wider terminal shows all, and so does --csv.`, width)
}

type Sized = Column & { natural: number, isDrawn: boolean }

function measure(column: Column, cells: Cell[]): Sized {
  const texts = [column.heading, ...cells.filter((cell) => typeof cell === 'string')]
  const isDrawn = cells.some((cell) => typeof cell === 'function')
  return { ...column, isDrawn, natural: Math.max(isDrawn ? DRAWN : 0, ...texts.map(widthOf)) }
}

/** Finds how wide each column is, and which there is room for. */
function layOut(columns: Sized[], width: number): { kept: number[], widths: number[] } {
  const widths = columns.map(({ natural }) => natural)
  const excess = (of: number[]) => kept.reduce((sum, i) => sum + of[i]! + GAP, -GAP) - width
  const kept = columns.map((_, i) => i)
  const readable = columns.map(({ natural, shrinks }) => (shrinks ? Math.min(natural, READABLE) : natural))
  while (excess(readable) > 0) {
    const last = kept.findLastIndex((i) => columns[i]!.optional)
    if (last < 0) break
    kept.splice(last, 1)
  }
  const shrinking = kept.filter((i) => columns[i]!.shrinks)
  while (excess(widths) > 0) {
    const widest = shrinking.filter((i) => widths[i]! > LEAST).sort((a, b) => widths[b]! - widths[a]!)[0]
    if (widest === undefined) break
    widths[widest]!--
  }
  const drawn = kept.find((i) => columns[i]!.isDrawn)
  if (drawn !== undefined) widths[drawn]! -= Math.min(excess(widths), 0)
  return { kept, widths }
}

function draw(cell: Cell, width: number, { align, style = (text) => text }: Column, isHeading: boolean): string {
  const text = typeof cell === 'function' ? cell(width) : fit(cell, width)
  const room = ' '.repeat(Math.max(width - widthOf(text), 0))
  const styled = isHeading ? text : style(text)
  return align === 'right' ? room + styled : styled + room
}

/** How many cells of a terminal a text takes. */
export const widthOf = (text: string): number => stringWidth(text)

/** A text in no more than so many cells; what is cut short ends in …. */
export function fit(text: string, width: number): string {
  if (widthOf(text) <= width) return text
  let kept = ''
  for (const { segment } of new Intl.Segmenter().segment(text)) {
    if (widthOf(kept + segment) > width - 1) break
    kept += segment
  }
  return `${kept}…`
}
