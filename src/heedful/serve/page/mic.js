// Hands the samples of the microphone to the page, block by block.

class Taker extends AudioWorkletProcessor {
  process(inputs) {
    const block = inputs[0]?.[0];
    if (block) this.port.postMessage(block.slice());
    return true;
  }
}

registerProcessor("taker", Taker);
