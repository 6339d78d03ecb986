import * as Plot from '@observablehq/plot'
import { useEffect, useRef } from 'preact/hooks'
import { periodName, shortDate, timeOfDay } from './format.ts'
import type { Period } from './questions.ts'

/** A chart of Observable Plot's, as wide as there is room, and drawn anew when that changes. `label` says what it shows. */
export function Plotted({ label, draw }: { label: string, draw(width: number): Plot.PlotOptions }) {
  const box = useRef<HTMLDivElement>(null)
  useEffect(() => {
    const element = box.current
    if (!element) return
    let painted = 0
    const observer = new ResizeObserver(() => requestAnimationFrame(() => {
      const width = element.clientWidth
      if (width === 0 || width === painted) return
      painted = width
      element.replaceChildren(tidied(Plot.plot({ ...look, ...draw(width), width })))
    }))
    observer.observe(element)
    return () => observer.disconnect()
  }, [draw])
  return <div class="plot" role="img" aria-label={label} ref={box} />
}

const look: Plot.PlotOptions = { className: 'plotted', marginLeft: 44, marginRight: 16, marginBottom: 28, style: { fontSize: '12px', overflow: 'visible' } }

// Plot brings its style sheet along inside the drawing, which a strict content security policy refuses: style.css has
// it. And it names each part of the drawing, which says nothing beside the label of the whole.
function tidied(drawing: Element): Element {
  for (const style of drawing.querySelectorAll('style')) style.remove()
  drawing.setAttribute('aria-hidden', 'true')
  return drawing
}

/** What Plot calls the periods of the database, whose weeks begin on Monday. */
export const intervals: Record<Period, Plot.LiteralTimeInterval> = { hour: 'hour', day: 'day', week: 'monday', month: 'month' }

const lengths: Record<Period, number> = { hour: 3_600_000, day: 86_400_000, week: 7 * 86_400_000, month: 30 * 86_400_000 }

/** The middle of a period that begins at a time. */
export const middleOf = (time: string, period: Period): Date => new Date(Date.parse(time) + lengths[period] / 2)

/** An axis below bars: as many of their periods as fit, each named below the middle of its bar. */
export function periodAxis(periods: string[], period: Period, width: number): Plot.Markish {
  const every = Math.ceil(periods.length / Math.max(2, Math.floor((width - 60) / 76)))
  // Counted from the latest, which is the one that people look for.
  const ticks = periods.filter((_, index) => (periods.length - 1 - index) % every === 0).map((time) => middleOf(time, period))
  const name = (middle: Date) => {
    const begin = new Date(middle.getTime() - lengths[period] / 2).toISOString()
    return period === 'hour' ? timeOfDay(begin).slice(0, 5) : period === 'month' ? periodName(begin, period) : shortDate(begin)
  }
  return Plot.axisX(ticks, { tickSize: 0, tickPadding: 8, label: null, tickFormat: name })
}

/** An axis of time for what has no periods. */
export const timeAxis = { type: 'utc', label: null, tickSize: 0, tickPadding: 8 } as const

/** Lines across, and numbers beside them. */
export const grid = (options: Plot.AxisYOptions = {}): Plot.Markish[] => [
  Plot.gridY({ stroke: 'var(--line)', strokeOpacity: 1, ticks: options.ticks ?? 4 }),
  Plot.axisY({ tickSize: 0, label: null, ticks: 4, ...options }),
]

/** Round spans of time up to one: at most five, in seconds. */
export function durationTicks(most: number): number[] {
  const steps = [1, 2, 5, 10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400]
  const step = steps.find((seconds) => most / seconds <= 5) ?? 86_400 * Math.ceil(most / 86_400 / 5)
  return Array.from({ length: Math.floor(most / step) + 1 }, (_, n) => n * step)
}
