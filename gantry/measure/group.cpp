#include "gantry/measure/group.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <chrono>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/ProcessGroupGloo.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>

#include "gantry/base/check.h"
#include "gantry/base/env.h"

C10_DECLARE_int(caffe2_log_level);

namespace gantry::measure {
namespace {

constexpr int kFatalOnly = 3;  // of libtorch's log levels

std::chrono::milliseconds milliseconds(double seconds) {
  return std::chrono::milliseconds(static_cast<std::int64_t>(1e3 * seconds));
}

auto gloo_device(const RankPlace& place) {
  if (place.nodes() == 1) return c10d::ProcessGroupGloo::createDeviceForHostname("127.0.0.1");
  if (const auto interface = base::env("GLOO_SOCKET_IFNAME")) {
    return c10d::ProcessGroupGloo::createDeviceForInterface(*interface);
  }
  return c10d::ProcessGroupGloo::createDefaultDevice();
}

}  // namespace

struct MeetingPoint::Impl {
  c10::intrusive_ptr<c10d::TCPStore> store;
};

MeetingPoint::MeetingPoint(const RankPlace& place, double timeout_s)
    : place_(place), timeout_s_(timeout_s), impl_(std::make_unique<Impl>()) {
  c10d::TCPStoreOptions options;
  options.port = static_cast<std::uint16_t>(place.port);
  options.isServer = place.rank == 0 && !place.served;
  options.waitWorkers = false;
  options.timeout = milliseconds(timeout_s);
  FLAGS_caffe2_log_level = std::max(FLAGS_caffe2_log_level, kFatalOnly);  // retries are no news, errors are thrown
  try {
    impl_->store = c10::make_intrusive<c10d::TCPStore>(place.address, options);
  } catch (const c10::Error& error) {
    base::fail("rank {} cannot meet the others at {}:{}: {}", place.rank, place.address, place.port,
               error.what_without_backtrace());
  }
  place_.port = impl_->store->getPort();
}

MeetingPoint::~MeetingPoint() = default;

struct Group::Impl {
  c10::intrusive_ptr<c10d::ProcessGroupGloo> gloo;
  at::Tensor whole, part;

  void fit(std::int64_t elements, int ranks) {
    if (whole.defined() && whole.numel() == elements) return;
    whole = at::zeros({elements}, at::kFloat);
    part = at::zeros({elements / ranks}, at::kFloat);
  }
};

bool Group::contains(const RankPlace& place, cost::GroupShape shape) {
  return place.node() < shape.nodes && place.local_rank() < shape.per_node;
}

Group::Group(MeetingPoint& meeting, cost::GroupShape shape)
    : shape_(shape),
      rank_(meeting.place().node() * shape.per_node + meeting.place().local_rank()),
      impl_(std::make_unique<Impl>()) {
  GANTRY_CHECK(contains(meeting.place(), shape), "rank {} does not belong to a group of {} nodes x {}",
               meeting.place().rank, shape.nodes, shape.per_node);
  const auto options = c10d::ProcessGroupGloo::Options::create(milliseconds(meeting.timeout_s_));
  options->devices.push_back(gloo_device(meeting.place()));
  auto store = c10::make_intrusive<c10d::PrefixStore>(fmt::format("group-{}x{}", shape.nodes, shape.per_node),
                                                      meeting.impl_->store);
  impl_->gloo = c10::make_intrusive<c10d::ProcessGroupGloo>(store, rank_, size(), options);
}

Group::~Group() = default;

void Group::barrier() { impl_->gloo->barrier()->wait(); }

std::vector<std::int64_t> Group::agree(const std::vector<std::int64_t>& values) {
  std::vector<at::Tensor> tensors{at::tensor(values, at::kLong)};
  impl_->gloo->broadcast(tensors)->wait();
  const auto* first = tensors[0].const_data_ptr<std::int64_t>();
  return {first, first + tensors[0].numel()};
}

void Group::run(cost::Collective kind, std::int64_t bytes) {
  const std::int64_t elements = std::max<std::int64_t>(1, bytes / 4 / size()) * size();
  impl_->fit(elements, size());
  c10d::ProcessGroupGloo& gloo = *impl_->gloo;
  switch (kind) {
    case cost::Collective::kAllGather: gloo._allgather_base(impl_->whole, impl_->part)->wait(); return;
    case cost::Collective::kReduceScatter: gloo._reduce_scatter_base(impl_->part, impl_->whole)->wait(); return;
    case cost::Collective::kAllReduce: {
      std::vector<at::Tensor> tensors{impl_->whole};  // of zeros: sums in place never grow
      gloo.allreduce(tensors)->wait();
      return;
    }
  }
  GANTRY_UNREACHABLE();
}

}  // namespace gantry::measure
